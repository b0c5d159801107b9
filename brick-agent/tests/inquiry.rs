//! What a person asks of the files of a volume: what is pending, in pages; who holds what; kept versions and the way back; copies read.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use nearbrick_agent::brick::mark::{Mark, XATTR};
use nearbrick_agent::index::Print;
use nearbrick_agent::peer::Refused;
use nearbrick_crds::files::{
    Answer, Ask, Holding, KeptPage, PendingAsk, PendingPage, Refusal, RestoreRequest, VerifyRequest,
    Verifying, Whereabouts,
};
use support::fs::{Fs, path};
use support::members::Lab;

fn write(lab: &Lab, n: usize, at: &str, bytes: &[u8]) {
    Fs::new(lab.volume(n)).write_file(&path(at), bytes).unwrap();
    lab.settle(n);
}

fn node(lab: &Lab, n: usize) -> String {
    lab.volume(0).config().member(lab.brick(n)).unwrap().node.clone()
}

fn pending(lab: &Lab, n: usize, ask: PendingAsk) -> PendingPage {
    match lab.volume(n).inquire(Ask::Pending(ask)).unwrap() {
        Answer::Pending(page) => page,
        other => panic!("{other:?}"),
    }
}

fn whereabouts(lab: &Lab, n: usize, path: &str) -> Whereabouts {
    match lab.volume(n).inquire(Ask::Where { path: path.to_owned() }).unwrap() {
        Answer::Where(found) => *found,
        other => panic!("{other:?}"),
    }
}

fn kept(lab: &Lab, n: usize, path: &str) -> KeptPage {
    match lab.volume(n).inquire(Ask::Versions { path: path.to_owned() }).unwrap() {
        Answer::Versions(page) => page,
        other => panic!("{other:?}"),
    }
}

fn verify(lab: &Lab, n: usize, path: Option<&str>) -> Result<Verifying, Refused> {
    let wanted = VerifyRequest { path: path.map(str::to_owned), ..VerifyRequest::default() };
    match lab.volume(n).inquire(Ask::Verify(wanted))? {
        Answer::Verify(said) => Ok(said),
        other => panic!("{other:?}"),
    }
}

fn refusal(lab: &Lab, ask: Ask) -> Refusal {
    let Refused(why, line) = lab.volume(0).inquire(ask).unwrap_err();
    assert!(!line.contains('\n'), "{line}");
    why
}

#[test]
fn what_is_pending_comes_in_pages_that_are_the_same_at_all_members() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).mkdir(&path("d")).unwrap();
    for n in 0..5 {
        write(&lab, 0, &format!("d/{n}"), b"bytes");
    }
    write(&lab, 0, "other", b"of another size");
    lab.exchange();
    for member in 0..2 {
        let (mut names, mut after, mut pages) = (BTreeSet::new(), None, 0);
        loop {
            let page = pending(&lab, member, PendingAsk { limit: 4, after, ..PendingAsk::default() });
            pages += 1;
            assert_eq!(page.total, 6);
            for file in &page.files {
                assert_eq!(file.lacking.iter().map(|l| l.node.clone()).collect::<Vec<_>>(), [node(&lab, 1)]);
                assert!(file.lacking[0].since.is_some());
                assert_eq!(file.held_by, [node(&lab, 0)]);
            }
            names.extend(page.files.into_iter().map(|file| (file.path, file.size)));
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((pages, names.len()), (2, 6));
        assert!(names.contains(&("other".to_owned(), 15)));
    }
    let of = |path: &str, node: Option<String>| {
        pending(&lab, 1, PendingAsk { path: path.to_owned(), node, ..PendingAsk::default() }).files.len()
    };
    assert_eq!((of("d", None), of("d/3", None), of("/other/", None), of("ot", None)), (5, 1, 1, 0));
    assert_eq!((of("", Some(node(&lab, 1))), of("", Some(node(&lab, 0)))), (6, 0));
    lab.converge();
    assert_eq!(pending(&lab, 0, PendingAsk::default()), PendingPage::default());

    let ask = |ask: PendingAsk| refusal(&lab, Ask::Pending(ask));
    assert_eq!(ask(PendingAsk { path: "a/../b".to_owned(), ..PendingAsk::default() }), Refusal::Bad);
    assert_eq!(ask(PendingAsk { after: Some("x".to_owned()), ..PendingAsk::default() }), Refusal::Bad);
    assert_eq!(
        ask(PendingAsk { node: Some("nobody".to_owned()), ..PendingAsk::default() }),
        Refusal::NotFound
    );
}

#[test]
fn where_tells_holders_older_copies_and_stubs_apart() {
    needs!(Root);
    let mut lab = Lab::new(3, 2);
    write(&lab, 0, "f", b"one");
    lab.exchange();
    // Whose agent has never said where it is has not joined.
    assert_eq!(whereabouts(&lab, 0, "f").bricks[2].holds, Holding::Nothing);
    lab.configure(|config| config.members.iter_mut().for_each(|m| m.address = Some("there:1".to_owned())));
    lab.exchange();
    let holds = |at: usize| whereabouts(&lab, at, "f").bricks.iter().map(|b| b.holds).collect::<Vec<_>>();
    for member in 0..3 {
        assert_eq!(holds(member), [Holding::Newest, Holding::Stub, Holding::Stub], "{member}");
    }
    lab.converge();
    write(&lab, 1, "f", b"two, longer");
    lab.exchange();
    let found = whereabouts(&lab, 2, "f");
    let row = |n: usize| &found.bricks[n];
    assert_eq!(holds(0), [Holding::Older, Holding::Newest, Holding::Stub]);
    assert_eq!((row(1).size, row(1).writer.clone()), (Some(11), Some(node(&lab, 1))));
    assert!(row(0).in_set && row(1).in_set && !row(2).in_set && row(1).written_at.is_some());
    assert_eq!((row(1).first_hand, row(2).first_hand), (false, true));

    // Apart, each with an edit of its own.
    lab.converge();
    write(&lab, 0, "f", b"by one");
    write(&lab, 1, "f", b"by the other");
    lab.exchange();
    let found = whereabouts(&lab, 2, "f");
    if found.in_conflict {
        assert_eq!(found.bricks.iter().filter(|b| b.holds == Holding::Conflicting).count(), 2, "{found:?}");
    }
    assert_eq!(refusal(&lab, Ask::Where { path: "nothing".to_owned() }), Refusal::NotFound);
    assert_eq!(refusal(&lab, Ask::Where { path: "".to_owned() }), Refusal::NotFound);
    Fs::new(lab.volume(0)).mkdir(&path("d")).unwrap();
    assert_eq!(refusal(&lab, Ask::Where { path: "d".to_owned() }), Refusal::Bad);
}

#[test]
fn what_is_kept_of_a_path_comes_back_and_of_another_path_it_does_not() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    write(&lab, 0, "f", b"what was there");
    write(&lab, 0, "g", b"another");
    lab.converge();
    Fs::new(lab.volume(0)).unlink(&path("f")).unwrap();
    lab.settle(0);
    lab.converge();
    let page = kept(&lab, 1, "f");
    assert_eq!((page.versions.len(), page.cut), (1, false));
    let version = &page.versions[0];
    assert_eq!((version.why.as_str(), version.size, version.path.as_deref()), ("deleted", 14, Some("f")));
    assert_eq!((&version.node, version.writer.as_ref()), (&node(&lab, 1), Some(&node(&lab, 0))));
    assert_eq!(kept(&lab, 1, "").versions, page.versions);
    assert_eq!(kept(&lab, 1, "g").versions, []);

    let restore = |path: &str, to: Option<&str>| {
        let (version, path) = (version.version.clone(), path.to_owned());
        lab.volume(1).inquire(Ask::Restore(RestoreRequest {
            version,
            path,
            to: to.map(str::to_owned),
            node: None,
        }))
    };
    assert_eq!(restore("g", None).unwrap_err().0, Refusal::NotFound);
    assert_eq!(restore("f", Some("../out")).unwrap_err().0, Refusal::Bad);
    assert_eq!(restore("f", Some(".nearbrick/x")).unwrap_err().0, Refusal::Bad);
    assert_eq!(restore("f", None), Ok(Answer::Restored("f".to_owned())));
    assert_eq!(restore("", Some("d/again")), Ok(Answer::Restored("d/again".to_owned())));
    lab.settle(1);
    lab.converge();
    for at in ["f", "d/again"] {
        assert_eq!(Fs::new(lab.volume(0)).read_file(&path(at)).unwrap(), b"what was there", "{at}");
    }
    let none = RestoreRequest { version: "../../identity".to_owned(), ..RestoreRequest::default() };
    assert_eq!(refusal(&lab, Ask::Restore(none)), Refusal::NotFound);
}

#[test]
fn copies_are_read_and_what_the_disk_damaged_is_named() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    Fs::new(lab.volume(0)).mkdir(&path("d")).unwrap();
    for at in ["d/good", "d/bad", "beside"] {
        write(&lab, 0, at, at.as_bytes());
    }
    lab.converge();
    let read = |lab: &Lab, path: &str| verify(lab, 1, Some(path)).unwrap();
    assert_eq!(read(&lab, "d").read.map(|r| (r.files, r.bytes, r.damaged)), Some((2, 11, 0)));
    assert_eq!(read(&lab, "beside").read.map(|r| r.files), Some(1));
    assert_eq!(verify(&lab, 1, Some("nothing")).unwrap_err().0, Refusal::NotFound);

    // The disk turns a byte: its times are as they were.
    let at = lab.data(1).join("d/bad");
    lab.close(1);
    File::options().write(true).open(&at).unwrap().write_all_at(b"X", 0).unwrap();
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(&at, XATTR, &mut value[..]).unwrap();
    let file = Mark::from_bytes(&value[..len]).unwrap().file;
    let meta = std::fs::metadata(&at).unwrap();
    let nsec = |n: i64| u32::try_from(n).unwrap();
    let print = Print {
        ino: meta.ino(),
        size: meta.size(),
        mtime: (meta.mtime(), nsec(meta.mtime_nsec())),
        ctime: (meta.ctime(), nsec(meta.ctime_nsec())),
    };
    lab.say_local(1, file, |local| local.print = Some(print));
    lab.open(1);
    let said = read(&lab, "d");
    assert_eq!(said.read.map(|r| (r.files, r.damaged)), Some((1, 1)));
    assert_eq!((said.damaged, said.after, said.node), (vec!["d/bad".to_owned()], None, node(&lab, 1)));
    let found = whereabouts(&lab, 1, "d/bad");
    assert!(found.bricks[1].damaged && !found.bricks[0].damaged, "{found:?}");
    // A heal repairs it.
    lab.converge();
    lab.scrub(1);
    let found = whereabouts(&lab, 1, "d/bad");
    assert!(!found.bricks[1].damaged && found.bricks[1].holds == Holding::Newest, "{found:?}");

    // Of the whole brick it is said when that began.
    let began = verify(&lab, 1, None).unwrap().began;
    assert!(began.is_some());
    lab.scrub(1);
    assert!(whereabouts(&lab, 1, "beside").bricks[1].verified_at.is_some());
    // What was written here was not read yet by anybody; the pass says its hash.
    write(&lab, 1, "new", b"new");
    assert_eq!(whereabouts(&lab, 1, "new").bricks[1].verified_at, None);
    lab.scrub(1);
    assert!(whereabouts(&lab, 1, "new").bricks[1].verified_at.is_some());
}
