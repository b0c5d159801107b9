//! Programs that people use, on a mounted volume: git, SQLite, tar, rsync, vim, cargo. Each checks its own
//! work, and what the brick has in the end is what they wrote. `NEARBRICK_PROGRAMS_SCALE=10` makes them
//! work ten times as much.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::mounts::MountedLab;
use support::wait;

fn scale() -> usize {
    std::env::var("NEARBRICK_PROGRAMS_SCALE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Whether all of these programs are here; says so if not.
fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|p| !std::env::split_paths(&path).any(|dir| dir.join(p).is_file()));
    if let Some(missing) = missing {
        println!("left out: {missing} is not installed: `cargo lab test` installs it");
    }
    missing.is_none()
}

/// Runs with passthrough and without, in an empty folder of the mount.
fn both(work: impl Fn(&MountedLab, &Path)) {
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        let m = MountedLab::new(1, 1, passthrough);
        let dir = m.path(0, "work");
        fs::create_dir(&dir).unwrap();
        work(&m, &dir);
        m.lab.settle(0);
    }
}

/// Runs a script; what it wrote.
fn sh(dir: &Path, script: &str) -> String {
    start(dir, script).end()
}

struct Running {
    script: String,
    child: std::process::Child,
}

fn start(dir: &Path, script: &str) -> Running {
    let child = Command::new("sh")
        .args(["-euc", script])
        .current_dir(dir)
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Running { script: script.to_owned(), child }
}

impl Running {
    fn end(self) -> String {
        let output = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{said}\n{complained}", self.script);
        said
    }
}

/// What the brick has under the mount's folder `work`.
fn on_brick(m: &MountedLab, path: &str) -> PathBuf {
    m.lab.data(0).join("work").join(path)
}

#[test]
fn git_keeps_a_history() {
    needs!(Fuse);
    if !have(&["git"]) {
        return;
    }
    let commits = 120 * scale();
    both(|m, dir| {
        let script = format!(
            r#"
            git init --quiet --initial-branch=main repo
            cd repo
            git config user.name test; git config user.email test@example.org
            git config gc.auto 0
            mkdir -p src/deep/er
            for n in $(seq {commits}); do
                echo "line $n" >> src/log
                echo "$n" > "src/deep/er/file $((n % 37))"
                if [ $((n % 10)) = 0 ]; then git mv -k "src/deep/er/file $((n % 37))" "src/moved $n"; fi
                git add -A
                git commit --quiet -m "commit $n"
                if [ $((n % 20)) = 10 ]; then
                    git checkout --quiet -b "topic-$n" HEAD~3
                    echo "topic $n" > "topic-$n"
                    git add -A; git commit --quiet -m "topic $n"
                    git checkout --quiet main
                    git merge --quiet --no-edit "topic-$n"
                fi
            done
            git fsck --strict --full
            git gc --quiet --prune=now
            git fsck --strict --full
            git status --porcelain
            "#
        );
        assert_eq!(sh(dir, &script).trim(), "", "nothing is wrong, nothing is left to commit");
        let script = r#"
            git clone --quiet repo hard-links
            git clone --quiet --no-local repo copy
            for clone in hard-links copy; do
                git -C $clone fsck --strict --full
                test "$(git -C $clone rev-parse HEAD)" = "$(git -C repo rev-parse HEAD)"
                diff -r --exclude=.git repo $clone
            done
            git -C repo rev-list --count HEAD
        "#;
        let count: usize = sh(dir, script).trim().parse().unwrap();
        assert!(count > commits, "{count}");
        // The plain files of the brick are a repository too.
        m.lab.settle(0);
        let brick = on_brick(m, "");
        let script = "git -c safe.directory='*' -C repo fsck --strict --full && git -c safe.directory='*' -C repo status --porcelain";
        assert_eq!(sh(&brick, script).trim(), "");
    });
}

/// Two processes write one database at the same time.
fn sqlite(mode: &str) {
    let rows = 150 * scale();
    both(|m, dir| {
        sh(
            dir,
            &format!("sqlite3 db 'PRAGMA journal_mode={mode}; CREATE TABLE t(who TEXT, n INT, x BLOB);'"),
        );
        let writer = |who: &str| {
            format!(
                r#"
                for n in $(seq {rows}); do
                    echo "BEGIN IMMEDIATE; INSERT INTO t VALUES('{who}', $n, randomblob(3000));
                          UPDATE t SET x = randomblob(200) WHERE n = $n - 7;
                          DELETE FROM t WHERE n = $n - 50 AND who = '{who}'; COMMIT;"
                    if [ $((n % 25)) = 0 ]; then echo "PRAGMA quick_check;"; fi
                done | sqlite3 -bail -cmd '.timeout 60000' -cmd 'PRAGMA synchronous=NORMAL;' db
                "#
            )
        };
        let (a, b) = (start(dir, &writer("a")), start(dir, &writer("b")));
        for said in [a.end(), b.end()] {
            assert!(said.lines().all(|line| line == "ok"), "{said}");
        }
        let check = "sqlite3 db 'PRAGMA integrity_check; SELECT who, count(*), max(n) FROM t GROUP BY who;'";
        let kept = rows.min(50);
        let expected = format!("ok\na|{kept}|{rows}\nb|{kept}|{rows}\n");
        assert_eq!(sh(dir, check), expected);
        // A rolled back change is not there, and a dump is the same on the brick itself.
        sh(dir, "sqlite3 db 'BEGIN; DELETE FROM t; ROLLBACK; PRAGMA wal_checkpoint(TRUNCATE);'");
        assert_eq!(sh(dir, check), expected);
        m.lab.settle(0);
        let dump = "sqlite3 db .dump";
        assert_eq!(sh(dir, dump), sh(&on_brick(m, ""), dump));
    });
}

#[test]
fn sqlite_with_a_write_ahead_log_by_two_processes() {
    needs!(Fuse);
    if have(&["sqlite3"]) {
        sqlite("WAL");
    }
}

#[test]
fn sqlite_with_a_rollback_journal_by_two_processes() {
    needs!(Fuse);
    if have(&["sqlite3"]) {
        sqlite("DELETE");
    }
}

/// A tree with one of each kind.
fn make_tree(dir: &Path) {
    fs::create_dir_all(dir.join("tree/a/b")).unwrap();
    let tree = dir.join("tree");
    for n in 0..40 * scale() {
        let bytes: Vec<u8> = (0..n * 1000).map(|i| (i * n) as u8).collect();
        fs::write(tree.join(format!("a/file {n}")), bytes).unwrap();
    }
    fs::hard_link(tree.join("a/file 7"), tree.join("a/b/hard link")).unwrap();
    std::os::unix::fs::symlink("../file 3", tree.join("a/b/symbolic link")).unwrap();
    let script = r#"
        cd tree
        mkfifo -m 640 pipe
        mkdir -m 1777 sticky; mkdir -m 2775 shared; chown 0:50 shared
        chmod 4755 'a/file 1'; chmod 000 'a/file 2'; chown 7:8 'a/file 3'
        touch -d '1965-05-05 05:05:05.123456789 UTC' 'a/file 4'
        printf '\377\376' > "$(printf 'a/not \377 UTF-8')"
    "#;
    sh(dir, script);
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    rustix::fs::setxattr(tree.join("a/file 5"), "user.colour", b"red", rustix::fs::XattrFlags::empty())
        .unwrap();
}

#[test]
fn tar_packs_and_unpacks() {
    needs!(Fuse);
    if !have(&["tar"]) {
        return;
    }
    both(|_, dir| {
        make_tree(dir);
        let script = r#"
            tar --create --sparse --xattrs --file=archive.tar tree
            mkdir out
            tar --extract --xattrs --same-owner --preserve-permissions --directory=out --file=archive.tar
            tar --compare --file=archive.tar
            tar --compare --directory=out --file=archive.tar
        "#;
        assert_eq!(sh(dir, script).trim(), "", "no difference");
        let sparse = fs::metadata(dir.join("out/tree/sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "a hole is a hole: {} blocks", sparse.blocks());
        let linked = |name| fs::metadata(dir.join("out/tree").join(name)).unwrap().ino();
        assert_eq!(linked("a/file 7"), linked("a/b/hard link"));
        sh(dir, "rm -r tree out");
    });
}

/// Found here: the bytes that a read brought into a stub moved its ctime, and tar said that the file had
/// changed under it.
#[test]
fn tar_packs_what_is_elsewhere() {
    needs!(Fuse);
    if !have(&["tar"]) {
        return;
    }
    for passthrough in [true, false] {
        // The third member has no data of the first one's files.
        let m = MountedLab::new(3, 2, passthrough);
        let dir = m.path(0, "work");
        fs::create_dir(&dir).unwrap();
        for n in 0..8 {
            fs::write(dir.join(format!("file {n}")), vec![n as u8; n * 700_000]).unwrap();
        }
        m.lab.settle(0);
        m.lab.exchange();
        wait("all is shown", || m.path(2, "work/file 7").exists());
        let there = m.path(2, "work");
        let script = r#"
            tar --create --file=../../archive.tar file*
            tar --compare --file=../../archive.tar
        "#;
        assert_eq!(sh(&there, script).trim(), "");
        m.lab.exchange();
        // What was read is a copy now, and looks the same.
        assert_eq!(sh(&there, "tar --compare --file=../../archive.tar").trim(), "");
        assert_eq!(sh(&dir, "tar --compare --file=../../archive.tar").trim(), "");
    }
}

#[test]
fn rsync_copies_and_then_has_nothing_to_do() {
    needs!(Fuse);
    if !have(&["rsync"]) {
        return;
    }
    both(|_, dir| {
        make_tree(dir);
        let copy = "rsync -aHX --itemize-changes --checksum";
        assert_ne!(sh(dir, &format!("{copy} --sparse tree/ copy")).trim(), "");
        assert_eq!(sh(dir, &format!("{copy} --delete tree/ copy")).trim(), "", "all is there, times too");
        // Changed in the middle, grown, gone, new: into a new file, and in place.
        for how in ["", "--inplace --no-whole-file"] {
            let script = r#"
                cd tree
                printf middle | dd of='a/file 30' bs=1 seek=9000 conv=notrunc status=none
                echo more >> 'a/file 31'
                rm -f 'a/file 9'; date > 'a/new'; mv 'a/file 12' 'a/b/' 2>/dev/null || true
            "#;
            sh(dir, script);
            assert_ne!(sh(dir, &format!("{copy} {how} --delete tree/ copy")).trim(), "");
            assert_eq!(sh(dir, &format!("{copy} {how} --delete tree/ copy")).trim(), "");
            sh(dir, "diff -r --no-dereference tree/a copy/a");
        }
    });
}

#[test]
fn vim_saves_by_rename_and_in_place() {
    needs!(Fuse);
    if !have(&["vim"]) {
        return;
    }
    both(|m, dir| {
        for (backupcopy, same) in [("no", false), ("yes", true)] {
            let path = dir.join(format!("text-{backupcopy}"));
            fs::write(&path, b"first\nsecond\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            std::os::unix::fs::chown(&path, Some(0), Some(50)).unwrap();
            let before = fs::metadata(&path).unwrap();
            for n in 1..=10 {
                let script = format!(
                    "vim -es -N -u NONE -i NONE -c 'set backupskip= backupcopy={backupcopy} writebackup fsync' \
                     -c '%s/^second.*/second {n}/' -c 'wq' text-{backupcopy}"
                );
                sh(dir, &script);
                assert_eq!(fs::read_to_string(&path).unwrap(), format!("first\nsecond {n}\n"));
            }
            let after = fs::metadata(&path).unwrap();
            assert_eq!((after.mode(), after.gid()), (before.mode(), before.gid()));
            assert_eq!(after.ino() == before.ino(), same);
        }
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["text-no", "text-yes"], "no backup and no swap file stays");
        m.lab.settle(0);
        assert_eq!(fs::read(on_brick(m, "text-no")).unwrap(), b"first\nsecond 10\n");
    });
}

#[test]
fn cargo_builds_a_crate() {
    needs!(Fuse);
    if !have(&["cargo"]) {
        return;
    }
    // The linker maps its output, and cargo compares times.
    let home = std::env::var("HOME").unwrap_or_default();
    let homes = format!(
        "export CARGO_HOME={} RUSTUP_HOME={}",
        std::env::var("CARGO_HOME").unwrap_or(format!("{home}/.cargo")),
        std::env::var("RUSTUP_HOME").unwrap_or(format!("{home}/.rustup"))
    );
    both(|m, dir| {
        fs::create_dir_all(dir.join("tiny/src")).unwrap();
        fs::write(
            dir.join("tiny/Cargo.toml"),
            "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        )
        .unwrap();
        fs::write(dir.join("tiny/src/lib.rs"), "pub fn word() -> &'static str { \"built\" }\n").unwrap();
        fs::write(dir.join("tiny/src/main.rs"), "fn main() { println!(\"{}\", tiny::word()); }\n").unwrap();
        let build = format!(
            "{homes}; unset RUSTFLAGS; cd tiny; CARGO_TARGET_DIR=target cargo build --offline -v 2>&1"
        );
        let said = sh(dir, &build);
        assert!(said.contains("Running `"), "{said}");
        assert_eq!(sh(dir, "tiny/target/debug/tiny"), "built\n");
        m.lab.settle(0);
        let said = sh(dir, &build);
        assert!(
            said.contains("Fresh tiny") && !said.contains("Running `"),
            "settling changed no time: {said}"
        );
        fs::write(dir.join("tiny/src/lib.rs"), "pub fn word() -> &'static str { \"built again\" }\n")
            .unwrap();
        let said = sh(dir, &build);
        assert!(said.contains("Running `"), "{said}");
        assert_eq!(sh(dir, "tiny/target/debug/tiny"), "built again\n");
        m.lab.settle(0);
        assert_eq!(sh(&on_brick(m, ""), "tiny/target/debug/tiny"), "built again\n");
    });
}
