//! Volumes of one process that are members of one volume.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nearbrick_agent::config::{Member as Address, PlacementRule, StaleReads, VolumeConfig};
use nearbrick_agent::heal::limit::Throttle;
use nearbrick_agent::heal::{self, HealOutcome, HealRequest};
use nearbrick_agent::index::{Index, Local, Print};
use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::compare::Compare;
use nearbrick_agent::peer::wire::{self, Acks};
use nearbrick_agent::volume::{Compacted, Comparison, Pass, Volume, VolumeOptions};
use nearbrick_core::resolution::Order;
use nearbrick_core::{BrickId, Entry, FileId};
use uuid::Uuid;

use super::disk::{Disk, TestDir};
use super::net::Net;
use super::{tree, wait};

/// Members of one volume, each with its brick.
pub struct Lab {
    pub net: Arc<Net>,
    members: Vec<Member>,
    pub dir: TestDir,
}

struct Member {
    config: VolumeConfig,
    volume: Option<Arc<Volume>>,
}

fn brick_id(n: usize) -> BrickId {
    BrickId([n as u8 + 1; 16])
}

impl Lab {
    /// `count` members; each file is on its maker's brick and the `replicas - 1` next ones.
    pub fn new(count: usize, replicas: usize) -> Self {
        Lab::on(Disk::Here, count, replicas).expect("a directory")
    }

    /// The same on disks of this kind. None, with a line that says why, if there are none.
    pub fn on(disk: Disk, count: usize, replicas: usize) -> Option<Self> {
        let mut lab = Lab::unopened(disk, count, replicas)?;
        (0..count).for_each(|n| lab.open(n));
        Some(lab)
    }

    /// The same with no brick made yet.
    pub fn unopened(disk: Disk, count: usize, replicas: usize) -> Option<Self> {
        let dir = TestDir::new();
        let volume_uuid = Uuid::new_v4();
        let node = |n: usize| format!("ws-{}", char::from(b'a' + n as u8));
        let addresses: Vec<_> = (0..count)
            .map(|n| Address {
                brick: brick_id(n),
                name: format!("home.{}", node(n)),
                node: node(n),
                address: None,
            })
            .collect();
        let placement: Vec<_> = (0..count)
            .map(|n| PlacementRule {
                creator: node(n),
                paths: Vec::new(),
                bricks: (0..replicas).map(|k| brick_id((n + k) % count)).collect(),
                ..PlacementRule::default()
            })
            .collect();
        let members = (0..count)
            .map(|n| {
                let path = dir.disk(&node(n), disk)?.join("brick");
                let config = VolumeConfig {
                    namespace: "default".to_owned(),
                    name: "home".to_owned(),
                    volume_uuid,
                    node: node(n),
                    brick: brick_id(n),
                    path,
                    was_initialised: false,
                    members: addresses.clone(),
                    placement: placement.clone(),
                    stale_reads: StaleReads::Allow,
                    conflicts: Vec::new(),
                    retention_ms: nearbrick_agent::config::RETENTION_MS,
                    healing: Default::default(),
                    min_sync_copies: 1,
                    release_removals: None,
                    take_back_removals: None,
                    upkeep: Default::default(),
                };
                Some(Member { config, volume: None })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Lab { net: Arc::default(), members, dir })
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    pub fn brick(&self, n: usize) -> BrickId {
        self.members[n].config.brick
    }

    pub fn volume(&self, n: usize) -> &Arc<Volume> {
        self.members[n].volume.as_ref().expect("open")
    }

    /// Where the plain files of a brick are.
    pub fn data(&self, n: usize) -> PathBuf {
        self.members[n].config.path.join("data")
    }

    /// The directory of a brick.
    pub fn brick_dir(&self, n: usize) -> &std::path::Path {
        &self.members[n].config.path
    }

    /// Opens a volume; why not, if it is refused.
    pub fn try_open(&self, n: usize) -> Result<Arc<Volume>, String> {
        self.open_in(n, VolumeOptions::default())
    }

    /// Opens a volume in these surroundings; why not, if it is refused.
    pub fn open_in(&self, n: usize, options: VolumeOptions) -> Result<Arc<Volume>, String> {
        Volume::open(self.members[n].config.clone(), options).map_err(|e| e.to_string())
    }

    /// The index of a closed brick.
    pub fn index(&self, n: usize) -> Index {
        assert!(self.members[n].volume.is_none(), "close it first");
        Index::open(&self.brick_dir(n).join(".nearbrick/index")).unwrap()
    }

    /// Keeps the index as it is now, for [`Lab::cut_power`].
    pub fn keep_index(&self, n: usize) {
        let kept = self.brick_dir(n).join(".nearbrick/kept-index");
        if kept.exists() {
            std::fs::remove_dir_all(&kept).unwrap();
        }
        let index = self.brick_dir(n).join(".nearbrick/index");
        let done = std::process::Command::new("cp").arg("-a").arg(index).arg(kept).status().unwrap();
        assert!(done.success());
    }

    /// The machine loses its power: of the index that is left which was kept. `data/` is what it is; the test makes
    /// of it what the cut left.
    pub fn cut_power(&mut self, n: usize) {
        self.close(n);
        let index = self.brick_dir(n).join(".nearbrick/index");
        std::fs::remove_dir_all(&index).unwrap();
        std::fs::rename(self.brick_dir(n).join(".nearbrick/kept-index"), &index).unwrap();
        self.lose_power(n);
    }

    /// What is left of a closed brick is as if the machine had lost its power.
    pub fn lose_power(&self, n: usize) {
        self.set_state(n, b"the machine's last boot");
    }

    /// As [`Lab::cut_power`], of the disk alone: it went away, and was mounted again on a machine that runs on.
    pub fn remount(&mut self, n: usize) {
        self.cut_power(n);
        self.only_killed(n);
    }

    /// The same as if only the agent had been killed.
    pub fn only_killed(&self, n: usize) {
        self.set_state(n, &VolumeOptions::default().boot);
    }

    fn set_state(&self, n: usize, state: &[u8]) {
        let index = self.index(n);
        let mut batch = index.batch();
        batch.meta("state", state);
        batch.commit().unwrap();
        index.persist().unwrap();
    }

    /// All members, open ones at once, get another configuration.
    pub fn configure(&mut self, change: impl Fn(&mut VolumeConfig)) {
        for member in &mut self.members {
            change(&mut member.config);
            if let Some(volume) = &member.volume {
                volume.set_config(member.config.clone());
            }
        }
    }

    /// Other placement rules for all members: whose files, on which paths, are to be on which bricks; and the rules' name.
    pub fn place(&mut self, name: &str, rules: &[(usize, &[&str], &[usize])]) {
        let node = |n: usize| format!("ws-{}", char::from(b'a' + n as u8));
        let placement: Vec<_> = rules
            .iter()
            .map(|(creator, paths, bricks)| PlacementRule {
                creator: node(*creator),
                paths: paths.iter().map(|p| (*p).to_owned()).collect(),
                bricks: bricks.iter().map(|n| brick_id(*n)).collect(),
                ..PlacementRule::default()
            })
            .collect();
        self.place_by(name, &placement);
    }

    /// The rules that all members follow.
    pub fn rules(&self) -> Vec<PlacementRule> {
        self.members[0].config.placement.clone()
    }

    /// The same, by any rules.
    pub fn place_by(&mut self, name: &str, rules: &[PlacementRule]) {
        self.configure(|config| {
            config.placement = rules.to_vec();
            config.upkeep.rules = Some(name.to_owned());
        });
    }

    /// A person's words, as the volume's annotations would bring them.
    pub fn say(&mut self, n: usize, release: Option<&str>, take_back: Option<&str>) {
        let config = &mut self.members[n].config;
        config.release_removals = release.map(str::to_owned);
        config.take_back_removals = take_back.map(str::to_owned);
        self.members[n].volume.as_ref().expect("open").set_config(self.members[n].config.clone());
    }

    /// A person's word, as the volume's annotation brings it, that the brick with this incarnation says all again.
    pub fn say_again(&mut self, n: usize, origin: &str) {
        let config = &mut self.members[n].config;
        config.upkeep.say_again = Some(origin.to_owned());
        self.members[n].volume.as_ref().expect("open").set_config(self.members[n].config.clone());
    }

    /// A person's word on a conflict, as this member's agent hears it from the API.
    pub fn order(&mut self, n: usize, order: Order) {
        let member = &mut self.members[n];
        member.config.upkeep.orders = vec![order];
        if let Some(volume) = &member.volume {
            volume.set_config(member.config.clone());
        }
    }

    /// `fsync` waits for so many bricks at every member.
    pub fn set_sync_copies(&mut self, n: u32) {
        for member in &mut self.members {
            member.config.min_sync_copies = n;
            member.volume.as_ref().expect("open").set_config(member.config.clone());
        }
    }

    /// Opens a closed volume.
    pub fn open(&mut self, n: usize) {
        self.open_with(n, VolumeOptions::default());
    }

    /// Opens a closed volume in these surroundings.
    pub fn open_with(&mut self, n: usize, options: VolumeOptions) {
        let member = &mut self.members[n];
        let volume = Volume::open(member.config.clone(), options);
        let volume = volume.unwrap_or_else(|e| panic!("{} does not open: {e}", member.config.node));
        member.config.was_initialised = true;
        self.net.join(member.config.brick, &volume);
        member.volume = Some(volume);
    }

    /// Closes a volume in order. All of its handles are to be released before.
    pub fn close(&mut self, n: usize) {
        let member = &mut self.members[n];
        if let Some(volume) = member.volume.take() {
            self.net.leave(member.config.brick);
            volume.close();
            // Threads that are ending may hold on to it for a moment.
            let last = Arc::downgrade(&volume);
            drop(volume);
            wait("the closed volume is dropped", || last.strong_count() == 0);
        }
    }

    /// Closes it and opens it again.
    pub fn reopen(&mut self, n: usize) {
        self.close(n);
        self.open(n);
    }

    /// What `to` lacks of the journals that `from` has.
    pub fn lacking(&self, to: usize, from: usize) -> Vec<Entry> {
        let heads = self.volume(to).heads();
        self.volume(from).entries_after(&heads, 64 << 10).unwrap()
    }

    /// Asks and answers until a comparison is done; gives the bytes that it took.
    pub fn drive(&self, from: usize, mut comparison: Comparison) -> usize {
        let mut bytes = 0;
        while let Some(request) = comparison.request() {
            assert!(request.is_bounded());
            let reply = self.volume(from).compared(&request).unwrap();
            reply.check(&request).unwrap();
            bytes += wire::encode(&request).len() + wire::encode(&reply).len();
            comparison.answer(reply).unwrap();
        }
        bytes
    }

    /// `to` compares its tree with that of `from`.
    pub fn compare(&self, to: usize, from: usize) -> usize {
        self.drive(from, self.volume(to).comparison(self.brick(from)))
    }

    /// Who has heard the same and does not have the same compares.
    pub fn reconcile(&self, to: usize, from: usize) {
        if self.volume(to).is_rebuilding() || self.volume(from).is_rebuilding() {
            return;
        }
        let [ours, theirs] =
            [to, from].map(|n| self.volume(n).acks(&Acks::new()).remove(&self.brick(n)).unwrap());
        if ours.heads == theirs.heads && ours.sum != theirs.sum {
            self.compare(to, from);
        }
    }

    /// Whether entries that `to` lacks are no longer in the journals of `from`.
    pub fn is_behind(&self, to: usize, from: usize) -> bool {
        self.volume(from).is_behind(&self.volume(to).heads())
    }

    /// Two members tell each other what all are known to have heard.
    pub fn gossip(&self, a: usize, b: usize) {
        let told = self.volume(b).acks(&self.volume(a).acks(&Acks::new()));
        self.volume(a).acks(&told);
    }

    /// Everyone who is open tells everyone, and gives up what all have heard.
    pub fn compact(&self) -> Compacted {
        let open: Vec<_> = (0..self.count()).filter(|n| self.members[*n].volume.is_some()).collect();
        for a in &open {
            open.iter().filter(|b| *b != a).for_each(|b| self.gossip(*a, *b));
        }
        let mut all = Compacted::default();
        for n in open {
            let done = self.volume(n).compact(Duration::MAX).unwrap();
            all.entries += done.entries;
            all.objects += done.objects;
        }
        all
    }

    /// The member gives up everything, as if all others had been away for too long.
    pub fn compact_alone(&self, n: usize) -> Compacted {
        self.volume(n).compact(Duration::ZERO).unwrap()
    }

    /// Pulls until `to` has all that `from` has; says how much was new.
    pub fn pull(&self, to: usize, from: usize) -> usize {
        let mut new = 0;
        loop {
            if self.volume(from).is_rebuilding() {
                return new;
            }
            if self.is_behind(to, from) || self.volume(to).is_rebuilding() {
                self.compare(to, from);
                new += 1;
                assert!(!self.is_behind(to, from), "after a comparison it is abreast");
            }
            // A member that asks says what it has.
            self.volume(from).asked(self.brick(to), &self.volume(to).heads());
            self.volume(to).hinted(self.brick(from), &self.volume(from).heads());
            let entries = self.lacking(to, from);
            if entries.is_empty() {
                if let Some(completion) = self.volume(to).completion(self.brick(from)) {
                    self.drive(from, completion);
                }
                return new;
            }
            let sent = entries.len();
            let took = self.volume(to).absorb(self.brick(from), entries).unwrap();
            assert_eq!(took, sent, "what was asked for is new");
            new += took;
        }
    }

    /// Everyone pulls from everyone until nothing is new.
    pub fn exchange(&self) {
        loop {
            let mut new = 0;
            for to in 0..self.count() {
                for from in 0..self.count() {
                    if to != from {
                        new += self.pull(to, from);
                        self.reconcile(to, from);
                    }
                }
            }
            if new == 0 {
                return;
            }
        }
    }

    /// Waits until no file of the member is still being written.
    pub fn settle(&self, n: usize) {
        wait("all files are settled", || self.volume(n).status().dirty_files == 0);
    }

    pub fn heal(&self, n: usize) -> HealOutcome {
        self.heal_as(n, &HealRequest::default())
    }

    pub fn heal_as(&self, n: usize, request: &HealRequest) -> HealOutcome {
        heal::run(self.volume(n), request, &|_| {}, &AtomicBool::new(false))
    }

    /// Looks through the whole brick; says what was found.
    pub fn scrub(&self, n: usize) -> Pass {
        let done = self.volume(n).scrub(&Throttle::default(), &AtomicBool::new(false)).unwrap();
        assert!(done, "nothing stands in the way");
        self.volume(n).scrub_status().last.unwrap()
    }

    /// Looks again at what was found; says how much of it is not repaired.
    pub fn unrepaired(&self, n: usize) -> u64 {
        self.volume(n).review_scrub(&Throttle::default(), &AtomicBool::new(false));
        self.volume(n).scrub_status().unrepaired()
    }

    /// Changes what the index of a closed brick says is here of a file.
    pub fn say_local(&self, n: usize, file: FileId, change: impl FnOnce(&mut Local)) {
        let index = self.index(n);
        let mut local = index.local(file).unwrap().unwrap();
        change(&mut local);
        let mut batch = index.batch();
        batch.local(file, Some(&local));
        batch.commit().unwrap();
        index.persist().unwrap();
    }

    /// Settles, exchanges and heals until nothing is pending anywhere.
    pub fn converge(&self) {
        let mut last = String::new();
        wait(&format!("nothing is pending {last}"), || {
            // What a power cut left waits for what others tell.
            self.exchange();
            (0..self.count()).for_each(|n| self.settle(n));
            self.exchange();
            let outcomes: Vec<_> = (0..self.count()).map(|n| self.heal(n)).collect();
            self.exchange();
            let statuses: Vec<_> = (0..self.count()).map(|n| self.volume(n).status()).collect();
            last = format!("{outcomes:?} {statuses:?}");
            statuses.iter().all(|s| {
                s.dirty_files == 0
                    && s.pending.files == 0
                    && s.pending_in.files == 0
                    && s.pending_out.is_empty()
            })
        });
    }

    /// The trees that the members show must be one; it is given back.
    pub fn one_tree(&self) -> tree::Tree {
        let first = tree::of_volume(self.volume(0), 100);
        for n in 1..self.count() {
            let other = tree::of_volume(self.volume(n), 100);
            tree::assert_same("ws-a", &first, &self.members[n].config.node, &other);
        }
        first
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(volume) = member.volume.take()
                && !std::thread::panicking()
            {
                volume.close();
            }
        }
    }
}

/// What a file looks like, as the index has it.
pub fn print_of(at: &std::path::Path) -> Print {
    let meta = std::fs::metadata(at).unwrap();
    let nsec = |n: i64| u32::try_from(n).unwrap();
    Print {
        ino: meta.ino(),
        size: meta.size(),
        mtime: (meta.mtime(), nsec(meta.mtime_nsec())),
        ctime: (meta.ctime(), nsec(meta.ctime_nsec())),
    }
}
