use std::io::Write;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Instant, UNIX_EPOCH};

use super::*;

fn written(write: impl Fn(&mut Vec<u8>, &Record<'_>)) -> String {
    let mut line = Vec::new();
    let args = format_args!("no route to {}", "a\nb\u{1b}[31m\u{2028}");
    write(&mut line, &Record::builder().level(Level::Warn).target("portcullis::edge").args(args).build());
    String::from_utf8(line).expect("log lines are UTF-8")
}

fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
}

#[test]
fn a_message_of_several_lines_is_one_line_of_text() {
    let line = written(|line, record| text(line, record, noon()).expect("writes to memory"));
    assert_eq!(line, "2023-11-14T22:13:20.123Z WARN  portcullis::edge: no route to a\\nb\\u{1b}[31m\\u{2028}\n");
}

#[test]
fn a_message_of_several_lines_is_one_line_of_json() {
    let line = written(|line, record| json(line, record, noon()).expect("writes to memory"));
    assert_eq!(line.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&line).expect("the line is JSON");
    assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
    assert_eq!(value["level"], "WARN");
    assert_eq!(value["message"], "no route to a\nb\u{1b}[31m\u{2028}");
}

/// A reader that takes nothing until it is told to go on, and what it has read.
struct Pipe {
    /// Where it says that it stands still, and what it waits for then.
    held: Option<(SyncSender<()>, Receiver<()>)>,
    read: Arc<Mutex<Vec<u8>>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some((stands, held)) = self.held.take() {
            // Each fails, and so goes on, when the test lets go of its end.
            let _ = stands.send(());
            let _ = held.recv();
        }
        self.read.lock().expect("no test panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Held {
    logger: Logger,
    drops: Drops,
    stands: Receiver<()>,
    stop: Option<SyncSender<()>>,
    read: Arc<Mutex<Vec<u8>>>,
}

/// A logger with a short queue before a reader that stands still.
fn held(format: LogFormat, bound: usize) -> Held {
    let metrics = Metrics::new("1.2.3", "boringssl").expect("the families are consistent");
    let (stop, held) = mpsc::sync_channel(0);
    let (stands_still, stands) = mpsc::sync_channel(1);
    let read = Arc::default();
    let sink = Box::new(Pipe { held: Some((stands_still, held)), read: Arc::clone(&read) });
    let settings = config::Log { level: LogLevel::Info, format };
    let logger = Logger::start(settings, sink, bound, metrics.log_drops()).expect("starts");
    Held { logger, drops: metrics.log_drops(), stands, stop: Some(stop), read }
}

fn say(logger: &Logger, level: Level, target: &str, message: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

impl Held {
    fn say(&self, level: Level, target: &str, message: &str) {
        say(&self.logger, level, target, message);
    }

    fn lines(&self) -> Vec<String> {
        let read = self.read.lock().expect("no test panicked").clone();
        String::from_utf8(read).expect("log lines are UTF-8").lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_reader_that_stands_still_holds_up_nobody_and_learns_what_it_missed() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let mut held = held(format, 16);
        held.say(Level::Info, "portcullis::edge", "the one that is being written");
        held.stands.recv_timeout(Duration::from_secs(10)).expect("the writer writes it");
        let (logger, begun) = (&held.logger, Instant::now());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope
                    .spawn(|| (0..250).for_each(|_| say(logger, Level::Info, "portcullis::edge", "handshake refused")));
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(10));
        let dropped = held.drops.queue_full.get();
        assert_eq!(dropped, 1000 - 16, "what exceeds the queue");
        assert!(!held.logger.queue.flush(Duration::from_millis(50)), "nothing was written");
        held.stop = None;
        assert!(held.logger.queue.flush(Duration::from_secs(10)));
        held.say(Level::Info, "portcullis::edge", "after");
        assert!(held.logger.queue.flush(Duration::from_secs(10)));
        let lines = held.lines();
        let told = lines.iter().position(|line| line.contains(&format!("{dropped} message(s) were dropped")));
        assert_eq!(told, Some(1 + 16), "{lines:#?}");
        assert!(lines.iter().filter(|line| line.contains("were dropped")).count() == 1, "said once");
        assert!(lines.last().is_some_and(|line| line.contains("after")), "{lines:#?}");
    }
}

#[test]
fn what_the_level_excludes_takes_no_room_in_the_queue() {
    let held = held(LogFormat::Text, 16);
    (0..1000).for_each(|_| held.say(Level::Debug, "portcullis::edge", "detail"));
    (0..1000).for_each(|_| held.say(Level::Info, "h2::proto", "another crate's"));
    (0..1000).for_each(|_| held.say(Level::Error, "pingora_proxy", "a failed request"));
    assert_eq!(held.drops.total(), 0);
}
