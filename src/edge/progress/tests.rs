use super::super::flow::Flow;
use super::*;
use crate::config::{ConnectionLimits, FrameLimits, RequestLimits};

const LONG: Duration = Duration::from_secs(60);

fn limits(lifetime: Duration, rates: RateLimits) -> Limits {
    Limits {
        handshake_timeout: LONG,
        request_head_timeout: LONG,
        keep_alive_timeout: LONG,
        h2_idle_timeout: LONG,
        h2_max_streams: 1,
        h2_upload_memory: 1,
        body_idle_timeout: LONG,
        request_lifetime: lifetime,
        connections: ConnectionLimits {
            all: 1,
            per_address: 1,
            per_identity: 1,
            handshakes: 1,
            handshakes_per_address: 1,
        },
        requests: RequestLimits { per_connection: 1, head: 1, fields: 1, target: 1, manifest: 1 },
        rates,
        h2_frames: FrameLimits {
            window: LONG,
            resets: 1,
            settings: 1,
            pings: 1,
            priorities: 1,
            window_updates: 1,
            empty: 1,
            continuations: 1,
            unknown: 1,
        },
    }
}

const NO_RATES: RateLimits = RateLimits { upload: 0, download: 0, window: LONG };

/// A connection whose client is waited for.
fn waiting() -> Arc<Flow> {
    let flow = Arc::new(Flow::new(false));
    flow.note_read(true);
    flow
}

#[tokio::test]
async fn a_request_has_its_time_however_fast_it_moves() {
    let request = async {
        loop {
            moved(Phase::RequestBody, LONG);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome: Result<(), Stall> =
        watched(waiting().begin(), &limits(Duration::from_millis(50), NO_RATES), request).await;
    assert_eq!(outcome, Err(Stall::Lifetime));
}

#[tokio::test]
async fn a_request_that_moves_is_left_alone() {
    let request = async {
        for _ in 0..4 {
            moved(Phase::RequestBody, Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        moved(Phase::Elsewhere, Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        7
    };
    assert_eq!(watched(waiting().begin(), &limits(LONG, NO_RATES), request).await, Ok(7));
}

#[tokio::test]
async fn a_request_that_stands_still_is_dropped_and_knows_why() {
    struct Guard(Arc<std::sync::Mutex<Option<Stall>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            *self.0.lock().expect("unpoisoned") = stalled();
        }
    }
    for (phase, stall) in [(Phase::ResponseBody, Stall::Upstream), (Phase::RequestBody, Stall::ClientSilent)] {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let guard = Guard(seen.clone());
        let request = async move {
            let _guard = guard;
            moved(phase, Duration::from_millis(40));
            std::future::pending::<()>().await;
        };
        assert_eq!(watched(waiting().begin(), &limits(LONG, NO_RATES), request).await, Err(stall));
        assert_eq!(*seen.lock().expect("unpoisoned"), Some(stall));
    }
}

#[tokio::test]
async fn who_is_not_waited_for_is_not_late() {
    let flow = waiting();
    let turn = flow.clone();
    let request = async move {
        // The upstream doesn't take what the client has sent.
        turn.note_read(false);
        moved(Phase::RequestBody, Duration::from_millis(40));
        tokio::time::sleep(Duration::from_millis(300)).await;
        // The client doesn't take what the upstream has sent.
        turn.note_write(true, 0);
        moved(Phase::ResponseBody, Duration::from_millis(40));
        tokio::time::sleep(Duration::from_millis(300)).await;
        moved(Phase::Elsewhere, Duration::ZERO);
    };
    assert_eq!(watched(flow.begin(), &limits(LONG, NO_RATES), request).await, Ok(()));
}

#[tokio::test]
async fn a_drip_is_too_slow_though_it_never_stops() {
    let rates = RateLimits { upload: 100_000, download: 100_000, window: Duration::from_millis(100) };
    let upload = async {
        loop {
            received(1);
            moved(Phase::RequestBody, LONG);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome: Result<(), Stall> = watched(waiting().begin(), &limits(LONG, rates), upload).await;
    assert_eq!(outcome, Err(Stall::ClientSlow));
    let flow = waiting();
    let taking = flow.clone();
    let download = async move {
        for taken in 0.. {
            taking.note_write(true, taken);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(watched(flow.begin(), &limits(LONG, rates), download).await, Err(Stall::ClientSlow));
}

#[test]
fn a_pause_does_no_harm_and_being_ahead_is_not_saved_up() {
    let (rate, window, second) = (1000, Duration::from_secs(10), Duration::from_secs(1));
    let mut pace = Pace::from(0);
    assert!(!pace.falls_behind(rate, second, 1_000_000, window));
    for _ in 0..10 {
        assert!(!pace.falls_behind(rate, second, 0, window));
    }
    assert!(!pace.falls_behind(rate, second, 5_000, window), "half of the debt is paid");
    for _ in 0..4 {
        assert!(!pace.falls_behind(rate, second, 0, window));
    }
    assert!(pace.falls_behind(rate, second, 0, window));
    let mut off = Pace::from(0);
    assert!((0..1000).all(|_| !off.falls_behind(0, second, 0, window)));
}
