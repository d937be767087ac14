//! `stock import` and `stock export`: data on standard output, messages on standard error, and no effect that depends
//! on whether they are read.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use local_nats::Server;
use tempfile::TempDir;

use crate::WORKER;
use crate::harness::command::{Ended, Out, program, run, with};

const HEADER: &str = "product,on_hand\n";

struct Shelf {
    nats: Server,
    folder: TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { nats: Server::start().unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// With this on it.
    fn with(stock: &str) -> Shelf {
        let shelf = Shelf::new();
        let file = shelf.file("stock.csv", &format!("{HEADER}{stock}"));
        let ended = run(&mut shelf.stock(&["import", file.to_str().unwrap()]));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        shelf
    }

    fn stock(&self, arguments: &[&str]) -> Command {
        let mut command = program(WORKER, &[&["stock"], arguments].concat());
        command.env("NATS_URL", self.nats.url());
        command
    }

    /// A line of a shell, in which `stock` is the program's command.
    fn shell(&self, line: &str) -> Ended {
        let script = format!(
            "stock() {{ '{WORKER}' stock \"$@\"; }}; umask 0; cd '{}'; {line}",
            self.folder.path().display()
        );
        let mut command = Command::new("/bin/sh");
        run(command.args(["-c", &script]).env_clear().env("NATS_URL", self.nats.url()).stdin(Stdio::null()))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is on it.
    fn read(&self) -> String {
        run(&mut self.stock(&["export", "-"])).out
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn an_export_is_whole_wherever_it_goes_and_words_are_beside_it() {
    let shelf = Shelf::with("lamp,7\nrug,1\n");
    let expected = format!("{HEADER}lamp,7\nrug,1\n");
    for line in
        ["stock export - > f", "stock export /dev/stdout > f", "stock export /dev/fd/1 > f", "stock export f"]
    {
        let ended = shelf.shell(line);
        assert!(ended.code == Some(0) && ended.out.is_empty(), "{line}: {ended:?}");
        assert!(ended.err.contains("products exported: 2"), "{line}: {ended:?}");
        assert_eq!(read(&shelf.path("f")), expected, "{line}");
    }
    shelf.shell("echo before > f; stock export /dev/stdout >> f; stock export - >> f");
    assert_eq!(read(&shelf.path("f")), format!("before\n{expected}{expected}"));
    assert_eq!(shelf.shell("stock export - | cat").out, expected);
    // A file that is open is continued at its position, and messages follow.
    shelf.shell(
        "(echo before; stock export /dev/fd/3 3>&1) >> f3; (echo before; stock export /dev/stderr) 2> f2 >&2",
    );
    assert_eq!(read(&shelf.path("f3")), format!("before\n{expected}"));
    let whole = read(&shelf.path("f2"));
    assert!(whole.starts_with("before\n") && whole.contains(&expected), "{whole}");
    assert!(whole.contains("exported: 2"), "{whole}");
    let words = shelf.shell("stock export /dev/stdout 2>&1 >/dev/null").out;
    assert!(words.contains("products exported: 2") && !words.contains("lamp"), "{words}");
}

#[test]
fn an_exported_file_is_its_owners_alone_and_replaced_as_a_whole() {
    let shelf = Shelf::with("lamp,7\n");
    let victim = shelf.file("victim", "mine");
    std::os::unix::fs::symlink(&victim, shelf.path("f")).unwrap();
    assert_eq!(shelf.shell("stock export f").code, Some(0));
    assert_eq!((read(&victim), read(&shelf.path("f"))), ("mine".to_owned(), format!("{HEADER}lamp,7\n")));
    assert_eq!(std::fs::metadata(shelf.path("f")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn an_import_into_an_empty_stock_alone_happens_once() {
    let shelf = Shelf::new();
    shelf.file("demo.csv", &format!("{HEADER}lamp,7\n"));
    let first = shelf.shell("stock import --if-empty demo.csv");
    assert!(first.code == Some(0) && first.err.contains("products imported: 1"), "{first:?}");
    shelf.file("counted.csv", &format!("{HEADER}lamp,3\nrug,1\n"));
    assert_eq!(shelf.shell("stock import counted.csv").code, Some(0));
    let again = shelf.shell("stock import --if-empty demo.csv");
    assert!(again.code == Some(0) && again.err.contains("2 products already"), "{again:?}");
    assert_eq!(shelf.read(), format!("{HEADER}lamp,3\nrug,1\n"));
}

#[test]
fn an_import_reads_standard_input() {
    let shelf = Shelf::new();
    let mut command = shelf.stock(&["import", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"product,on_hand\nlamp,7\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
    assert_eq!(shelf.read(), format!("{HEADER}lamp,7\n"));
}

#[test]
fn an_import_that_nobody_listens_to_is_done() {
    let shelf = Shelf::new();
    for (number, out) in [Out::Unread, Out::Full, Out::Closed].into_iter().enumerate() {
        let file = shelf.file("stock.csv", &format!("{HEADER}lamp,{number}\nrug,x\n"));
        let mut command = shelf.stock(&["import", "--skip-bad", file.to_str().unwrap()]);
        let ended = with(command.env("RUST_LOG", "debug"), out, out);
        assert_eq!((ended.code, shelf.read()), (Some(0), format!("{HEADER}lamp,{number}\n")), "{out:?}");
        let ended = with(&mut shelf.stock(&["import", file.to_str().unwrap()]), out, out);
        assert_eq!(ended.code, Some(1), "a bad line, {out:?}");
    }
}

#[test]
fn an_export_that_is_not_whole_is_not_said_to_be() {
    let shelf = Shelf::with("lamp,7\n");
    for out in [Out::Unread, Out::Full] {
        let ended = with(&mut shelf.stock(&["export", "-"]), out, Out::Read);
        assert!(ended.code == Some(1) && ended.err.contains("cannot write to standard output"), "{ended:?}");
    }
    // If the data went elsewhere, the messages do not matter.
    for out in [Out::Unread, Out::Full, Out::Closed] {
        let file = shelf.path("f");
        assert_eq!(with(&mut shelf.stock(&["export", file.to_str().unwrap()]), out, out).code, Some(0));
    }
    let ended = shelf.shell("stock export /dev/full");
    assert!(ended.code == Some(1) && ended.err.contains("/dev/full"), "{ended:?}");
}

#[test]
fn a_stray_quote_costs_its_own_line_is_named_and_the_counts_add_up() {
    let shelf = Shelf::new();
    let line = |number: u32| match number {
        302 => "\"p302,1\n".to_owned(),
        703 => "p703,\"1\n".to_owned(),
        number => format!("p{number},1\n"),
    };
    let file = shelf.file("stock.csv", &format!("{HEADER}{}", (2..=1_001).map(line).collect::<String>()));
    let ended = run(&mut shelf.stock(&["import", "--skip-bad", file.to_str().unwrap()]));
    assert!(ended.code == Some(0) && ended.out.is_empty(), "{ended:?}");
    assert!(
        ended.err.contains("lines read: 1000; products imported: 998; bad lines skipped: 2"),
        "{ended:?}"
    );
    assert!(ended.err.contains("stock.csv:302: ") && ended.err.contains("stock.csv:703: "), "{ended:?}");
    assert_eq!(shelf.read().lines().count(), 999);
}
