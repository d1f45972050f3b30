//! The recorder of metrics-exporter-prometheus, which is made when it is first needed.
//!
//! Its clock (quanta) begins by holding the processor's counter against the system's clock, in a loop that may take a fifth
//! of a second of CPU time. Neither the start of a node waits for that, nor its clients: it is done in a thread that has
//! the time that nobody else wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use tokio::sync::SetOnce;

/// The lowest priority (nice(2), which Linux has for each thread).
const NICE: i32 = 19;

/// A recorder that may not have been made yet.
pub(super) struct Recorder {
    is_begun: AtomicBool,
    making: Arc<Making>,
}

struct Making {
    builder: Mutex<Option<PrometheusBuilder>>,
    describe: fn(),
    made: SetOnce<Made>,
}

/// A recorder, and the way to what was recorded.
pub(super) struct Made {
    pub(super) recorder: PrometheusRecorder,
    pub(super) handle: PrometheusHandle,
}

impl Recorder {
    /// One that begins with these descriptions.
    pub(super) fn new(builder: PrometheusBuilder, describe: fn()) -> Self {
        let making = Making { builder: Mutex::new(Some(builder)), describe, made: SetOnce::new() };
        Self { is_begun: AtomicBool::new(false), making: Arc::new(making) }
    }

    /// The recorder, as soon as it is made. Cancellation safe.
    pub(super) async fn get(&self) -> &Made {
        if !self.is_begun.swap(true, Ordering::Relaxed) {
            let making = self.making.clone();
            let make = move || {
                // Where the system refuses that, others may have to wait. Elsewhere it would be the whole process.
                #[cfg(target_os = "linux")]
                let _ = rustix::process::nice(NICE);
                making.make();
            };
            if std::thread::Builder::new().name("metrics".into()).spawn(make).is_err() {
                self.making.make();
            }
        }
        self.making.made.wait().await
    }
}

impl Making {
    fn make(&self) {
        let Some(builder) = self.builder.lock().take() else { return };
        let recorder = builder.build_recorder();
        metrics::with_local_recorder(&recorder, self.describe);
        let handle = recorder.handle();
        _ = self.made.set(Made { recorder, handle });
    }
}
