use std::time::Duration;

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    window: Duration::from_secs(60),
    resets: 3,
    settings: 3,
    pings: 3,
    priorities: 3,
    window_updates: 3,
    empty: 3,
    continuations: 3,
    unknown: 3,
};

fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
    let length = u32::try_from(payload).expect("small").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    bytes.resize(HEAD + payload, 0xff);
    bytes
}

/// The same with padding of this length, which the payload includes.
fn padded(flags: u8, payload: usize, padding: u8) -> Vec<u8> {
    let mut bytes = frame(kind::DATA, flags | kind::PADDED, payload);
    bytes[HEAD] = padding;
    bytes
}

fn begun(limits: FrameLimits) -> Frames {
    let mut frames = Frames::new(limits);
    assert_eq!(receive(&mut frames, &[0; PREFACE]), Ok(0));
    frames
}

/// Takes all of it, head by head; how many bytes of bodies there were.
fn receive(frames: &mut Frames, mut bytes: &[u8]) -> Result<u64, EndReason> {
    let mut data = 0;
    while !bytes.is_empty() {
        let received = frames.received(bytes, |stream, bytes| {
            assert_eq!(stream, 1);
            data += bytes;
        })?;
        assert!(received.taken > 0);
        bytes = &bytes[received.taken..];
    }
    Ok(data)
}

fn send(frames: &mut Frames, bytes: &[u8]) -> Result<(), EndReason> {
    frames.sent(bytes, |stream, _| assert_eq!(stream, 1))
}

#[test]
fn each_kind_has_its_budget_and_its_reason() {
    let kinds = [
        (frame(kind::RST_STREAM, 0, 4), EndReason::ResetFlood),
        (frame(kind::SETTINGS, 0, 6), EndReason::SettingsFlood),
        (frame(kind::PING, 0, 8), EndReason::PingFlood),
        (frame(kind::PING, kind::ACK, 8), EndReason::PingFlood),
        (frame(kind::PRIORITY, 0, 5), EndReason::PriorityFlood),
        (frame(kind::WINDOW_UPDATE, 0, 4), EndReason::WindowUpdateFlood),
        (frame(kind::DATA, 0, 0), EndReason::EmptyFrameFlood),
        (padded(0, 1, 0), EndReason::EmptyFrameFlood),
        (padded(0, 200, 199), EndReason::EmptyFrameFlood),
        (frame(kind::HEADERS, 4, 0), EndReason::EmptyFrameFlood),
        (frame(kind::CONTINUATION, 0, 0), EndReason::EmptyFrameFlood),
        (frame(kind::CONTINUATION, 0, 1), EndReason::ContinuationFlood),
        (frame(0x42, 0, 7), EndReason::UnknownFrameFlood),
    ];
    for (bytes, reason) in kinds {
        let mut frames = begun(LIMITS);
        for _ in 0..3 {
            assert!(receive(&mut frames, &bytes).is_ok(), "{reason}");
        }
        assert_eq!(receive(&mut frames, &bytes), Err(reason));
    }
}

#[test]
fn what_moves_something_or_is_owed_has_no_budget() {
    let mut frames = begun(LIMITS);
    for _ in 0..100 {
        for bytes in [
            frame(kind::DATA, 0, 1),
            padded(0, 200, 198),
            frame(kind::DATA, kind::END_STREAM, 0),
            frame(kind::HEADERS, 5, 20),
            frame(kind::SETTINGS, kind::ACK, 0),
        ] {
            assert!(receive(&mut frames, &bytes).is_ok());
        }
    }
}

#[test]
fn frames_are_found_however_the_bytes_are_cut() {
    let mut stream = vec![0; PREFACE];
    for bytes in [frame(kind::HEADERS, 4, 300), frame(kind::DATA, 0, 70_000), frame(kind::PING, 0, 8)] {
        stream.extend(bytes);
    }
    stream.extend(padded(0, 9, 3));
    for size in [1, 2, 7, 8, 9, 10, 4096, stream.len()] {
        let mut frames = Frames::new(LIMITS);
        let data: u64 = stream.chunks(size).map(|part| receive(&mut frames, part).expect("within the budgets")).sum();
        assert_eq!(data, 70_005, "pieces of {size}");
        let pings = frames.tallies[Counted::Pings as usize].count;
        assert_eq!(pings, 1, "pieces of {size}");
    }
}

#[test]
fn a_frame_has_passed_when_its_last_byte_has() {
    let mut frames = begun(LIMITS);
    let bytes = frame(kind::DATA, 0, 100);
    let (most, last) = bytes.split_at(108);
    assert_eq!(receive(&mut frames, most), Ok(0));
    assert_eq!(receive(&mut frames, last), Ok(100));
}

#[test]
fn a_budget_comes_back_with_time() {
    let mut frames = begun(FrameLimits { window: Duration::from_millis(1), ..LIMITS });
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(2));
        for _ in 0..3 {
            assert!(receive(&mut frames, &frame(kind::PING, 0, 8)).is_ok());
        }
    }
}

#[test]
fn downloads_pay_for_their_window_updates() {
    let mut frames = begun(LIMITS);
    let update = frame(kind::WINDOW_UPDATE, 0, 4);
    for _ in 0..100 {
        assert!(send(&mut frames, &frame(kind::DATA, 0, 16_384)).is_ok());
        for _ in 0..8 {
            assert!(receive(&mut frames, &update).is_ok(), "a client that updates every 2 KiB");
        }
    }
    let outcome = (0..5_000).try_for_each(|_| receive(&mut frames, &update).map(drop));
    assert_eq!(outcome, Err(EndReason::WindowUpdateFlood), "nothing was sent for these");
}

#[test]
fn resets_that_a_client_provokes_are_the_clients() {
    let mut frames = begun(LIMITS);
    let reset = frame(kind::RST_STREAM, 0, 4);
    assert!(
        receive(&mut frames, &reset).is_ok()
            && send(&mut frames, &reset).is_ok()
            && receive(&mut frames, &reset).is_ok()
    );
    assert_eq!(send(&mut frames, &reset), Err(EndReason::ResetFlood));
    let mut frames = begun(LIMITS);
    for _ in 0..10 {
        assert!(send(&mut frames, &frame(kind::PING, kind::ACK, 8)).is_ok(), "the gateway's own answers are no flood");
    }
}

#[test]
fn bytes_stop_behind_each_head_and_say_whose_it_was() {
    let mut frames = begun(LIMITS);
    let mut bytes = [frame(kind::HEADERS, 0, 30), frame(kind::CONTINUATION, kind::END_HEADERS, 40)].concat();
    let head = bytes.len();
    bytes.extend(frame(kind::DATA, 0, 10));
    // The reserved bit is no part of the number.
    bytes[5] = 0x80;
    assert!(!frames.in_head());
    let mut feed = |bytes: &[u8]| {
        let received = frames.received(bytes, |_, _| panic!("no DATA yet")).expect("within the budgets");
        (received, frames.in_head())
    };
    assert_eq!(feed(&bytes[..HEAD]), (Received { taken: HEAD, head: None }, true));
    assert_eq!(feed(&bytes[HEAD..60]), (Received { taken: 60 - HEAD, head: None }, true));
    assert_eq!(feed(&bytes[60..]), (Received { taken: head - 60, head: Some(1) }, false));
    assert_eq!(receive(&mut frames, &bytes[head..]), Ok(10));
}
