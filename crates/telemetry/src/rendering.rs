//! Caches a text that is costly to render and requested by many: it is rendered at most once per interval, and each
//! caller gets a text rendered after the call. Must not depend on the text.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Minimum interval between the beginnings of two renderings.
const PAUSE: Duration = Duration::from_millis(100);

/// Renders a text on request. Clones share it.
#[derive(Clone)]
pub struct Rendering(Arc<Shared>);

struct Shared {
    render: Box<dyn Fn() -> String + Send + Sync>,
    last: Mutex<Option<Last>>,
}

struct Last {
    begun: Instant,
    text: Bytes,
}

impl Rendering {
    /// Renders with this function.
    pub fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Rendering {
        Rendering(Arc::new(Shared { render: Box::new(render), last: Mutex::new(None) }))
    }

    /// The current text.
    pub async fn text(&self) -> Bytes {
        let asked = Instant::now();
        let mut last = self.0.last.lock().await;
        if let Some(Last { begun, text }) = &*last {
            if *begun > asked {
                return text.clone();
            }
            // Calls in the meantime wait for the same text.
            sleep_until(*begun + PAUSE).await;
        }
        let begun = Instant::now();
        let text = Bytes::from((self.0.render)());
        *last = Some(Last { begun, text: text.clone() });
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_cost_two_renderings_and_nobody_gets_an_old_text() {
        let count = Arc::new(AtomicU32::new(0));
        let rendering = Rendering::new({
            let count = count.clone();
            move || count.fetch_add(1, Ordering::Relaxed).to_string()
        });
        assert_eq!(rendering.text().await, "0");
        let begun = Instant::now();
        let all: Vec<_> = (0..100)
            .map(|_| {
                tokio::spawn({
                    let rendering = rendering.clone();
                    async move { rendering.text().await }
                })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), "1");
        }
        assert_eq!(begun.elapsed(), PAUSE);
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
