//! Another process: this test program once more, which does one job as it is told, line by line.
//! A test program that uses it has a test `child` that is ignored and calls [`serve`].

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const FILE: &str = "NEARBRICK_TEST_CHILD";
/// Before each answer, so that lines of the test program itself are passed over.
const ANSWER: &str = "answer: ";

/// The other process, at work on one file.
pub struct Other {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Other {
    pub fn new(file: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Other { child, to, from }
    }

    /// Has it do something; it goes on meanwhile.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.to.as_mut().unwrap(), "{order}").unwrap();
    }

    /// What it answers to the oldest order that it has not answered yet.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the other process ended");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end().to_owned();
            }
        }
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // The end of its input is the end of its work.
        self.to = None;
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// The other process: answers orders about its file until there are no more.
pub fn serve(mut work: impl FnMut(&Path, &str) -> String) {
    let Some(file) = std::env::var_os(FILE) else { return };
    for order in std::io::stdin().lines() {
        let answer = work(Path::new(&file), &order.unwrap());
        println!("\n{ANSWER}{answer}");
    }
}
