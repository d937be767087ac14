//! A rate limit of log lines per source location, for our code and libraries: repeated lines under load fill no disk. A
//! separate line says how many were suppressed. Must not depend on the lines' contents.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines per source location in each interval: the longer a flood lasts, the lower its rate.
const MOST: [(u64, Duration); 2] = [(10, Duration::from_secs(1)), (60, Duration::from_secs(60))];
/// How long suppressed lines are counted before they are reported: the first time, and then.
const SOON: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(4);
/// The reports are not limited: there is one per location and interval.
const OWN: &str = "telemetry::limit";

/// The rate limit. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    places: Arc<Mutex<HashMap<Identifier, CallSite>>>,
    /// Signals that lines were suppressed.
    left_out: SyncSender<()>,
}

/// A source location, and its lines.
#[derive(Debug)]
struct CallSite {
    metadata: &'static Metadata<'static>,
    written: Written,
    left_out: u64,
}

/// For each interval: its beginning, and the number of lines since.
#[derive(Debug)]
struct Written([(Instant, u64); 2]);

impl Written {
    /// Whether one more line may be written.
    fn take(&mut self, now: Instant) -> bool {
        for ((since, lines), (_, time)) in self.0.iter_mut().zip(MOST) {
            if now.saturating_duration_since(*since) >= time {
                (*since, *lines) = (now, 0);
            }
        }
        let fits = self.0.iter().zip(MOST).all(|((_, lines), (most, _))| *lines < most);
        self.0.iter_mut().for_each(|(_, lines)| *lines += u64::from(fits));
        fits
    }
}

impl Limit {
    /// A limit, and a receiver that is signalled when lines were suppressed.
    pub(crate) fn new() -> (Limit, Receiver<()>) {
        let (left_out, heard) = sync_channel(1);
        (Limit { places: Arc::default(), left_out }, heard)
    }

    /// Reports suppressed lines on its own thread, as long as the process lives.
    pub(crate) fn tell(self, heard: Receiver<()>) -> std::io::Result<()> {
        let tell = move || {
            while heard.recv().is_ok() {
                std::thread::sleep(SOON);
                self.report();
                std::thread::sleep(PAUSE);
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(tell).map(drop)
    }

    /// Logs how many lines were suppressed since the last report.
    fn report(&self) {
        let mut told = Vec::new();
        for place in self.places.lock().values_mut() {
            let count = std::mem::take(&mut place.left_out);
            if count > 0 {
                told.push((place.metadata, count));
            }
        }
        for (metadata, left_out) in told {
            let (of, level) = (metadata.target(), metadata.level().as_str());
            let place =
                format!("{}:{}", metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
            tracing::warn!(target: OWN, left_out, of, level, place, "log lines were suppressed: at most 10 per second and 60 per minute from one place");
        }
    }

    /// Whether one more line of this location may be written.
    fn take(&self, metadata: &'static Metadata<'static>) -> bool {
        let now = Instant::now();
        let mut places = self.places.lock();
        let new = || CallSite { metadata, written: Written([(now, 0); 2]), left_out: 0 };
        let place = places.entry(metadata.callsite()).or_insert_with(new);
        if place.written.take(now) {
            return true;
        }
        place.left_out += 1;
        // If the channel is full, the receiver has been signalled already.
        let _ = self.left_out.try_send(());
        false
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    /// A filter above INFO (DEBUG, TRACE) is not limited.
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        *metadata.level() > Level::INFO || metadata.target() == OWN || self.take(metadata)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines written while this runs.
    fn written(limit: &Limit, filter: &str, done: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter(filter)
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish().with(limit.clone()), done);
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_flood_from_one_place_writes_ten_lines_and_how_many_were_left_out() {
        let (limit, heard) = Limit::new();
        let lines = written(&limit, "info", || {
            let begun = Instant::now();
            (0..1_280).for_each(|number| tracing::error!(number, "storage is full"));
            tracing::warn!("another place");
            limit.report();
            limit.report();
            // On a slow machine there may be ten in each of several seconds.
            assert!(begun.elapsed() < Duration::from_secs(60));
        });
        let count = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
        assert!((10..=60).contains(&count("storage is full")), "{lines:#?}");
        assert_eq!((count("another place"), heard.try_recv()), (1, Ok(())));
        let told = lines.iter().find(|line| line.contains("were suppressed")).unwrap();
        let left_out = 1_280 - count("storage is full");
        assert!(told.contains(&format!("left_out={left_out} ")) && told.contains("limit.rs:"), "{told}");
        assert_eq!(count("were suppressed"), 1, "{lines:#?}");
    }

    #[test]
    fn what_goes_on_for_minutes_writes_sixty_lines_in_each() {
        let begun = Instant::now();
        let mut written = Written([(begun, 0); 2]);
        // A hundred per second for two minutes.
        let times = (0..12_000).map(|number| begun + Duration::from_millis(10 * number));
        let taken: Vec<_> =
            times.filter(|now| written.take(*now)).map(|now| (now - begun).as_secs()).collect();
        let within = |seconds: std::ops::Range<u64>| taken.iter().filter(|at| seconds.contains(at)).count();
        assert_eq!((within(0..1), within(0..60), within(60..61), within(60..120)), (10, 60, 10, 60));
    }

    #[test]
    fn who_asks_for_debug_lines_gets_all_of_them() {
        let (limit, _heard) = Limit::new();
        let lines =
            written(&limit, "debug", || (0..100).for_each(|number| tracing::debug!(number, "detail")));
        assert_eq!(lines.len(), 100);
        let lines = written(&limit, "info", || (0..100).for_each(|number| tracing::debug!(number, "detail")));
        assert_eq!(lines.len(), 0);
    }
}
