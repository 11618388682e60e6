//! What is remembered of lists across restarts.

use super::*;

/// A new process with the memory of this one.
fn restarted(plane: &Plane) -> Plane {
    let mut next = Plane::new();
    // As text, which is what a file would keep.
    let lines: Vec<_> = plane.sources.seen().iter().map(ToString::to_string).collect();
    next.sources.remember(lines.iter().map(|line| line.parse().unwrap()));
    assert_eq!(next.sources.seen(), plane.sources.seen());
    next
}

fn kinds(report: &SourceReport) -> Vec<&'static str> {
    report.faults.iter().map(CrlFault::as_str).collect()
}

#[test]
fn an_older_list_after_a_restart_revokes_but_vouches_for_nobody() {
    let mut plane = Plane::new();
    plane.read(TestCrl::new(5, &[&[7], &[8]]).der());
    let mut plane = restarted(&plane);
    let older = TestCrl::new(4, &[&[7]]).der();
    for _ in 0..2 {
        let (index, reports) = plane.update(&[("ca.crl", Ok(older.clone()))]);
        assert_eq!(kinds(&reports[0]), ["older"]);
        assert!(reports[0].faults[0].to_string().starts_with("it is older (number 4) than a list that was in force"));
        assert_eq!((reports[0].lists[0].standing, reports[0].last_success), (Standing::RolledBack, None));
        assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked");
        assert_eq!(verdict(&index, &client(&[8]), NOW), "rolled_back");
        assert_eq!(verdict(&index, &client(&[9]), NOW), "rolled_back");
        assert_eq!(index.permits_until(&client(&[9])), i64::MIN);
    }
    let (index, fault) = plane.read(TestCrl::new(5, &[&[7], &[8]]).der());
    assert_eq!((fault, verdict(&index, &client(&[9]), NOW)), (None, "permitted"), "the same list is no older one");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "revoked");
}

#[test]
fn an_older_list_beside_the_newest_is_no_rollback() {
    let mut plane = Plane::new();
    plane.read(TestCrl::new(5, &[&[7]]).der());
    let mut plane = restarted(&plane);
    let lists = [("a", Ok(TestCrl::new(4, &[]).der())), ("b", Ok(TestCrl::new(5, &[&[7]]).der()))];
    let (index, reports) = plane.update(&lists);
    assert!(reports.iter().all(|report| report.faults.is_empty()), "{reports:?}");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted");
}

#[test]
fn each_scope_and_kind_is_remembered_by_itself() {
    let users = |number| TestCrl::new(number, &[]).with(|crl| crl.extensions.push(scope(&[USERS.to_vec()])));
    let delta =
        |number, serials: &[&[u8]]| TestCrl::new(number, serials).with(|crl| crl.extensions.push(delta_of(2))).der();
    let full = || TestCrl::new(3, &[]).der();
    let mut plane = Plane::new();
    plane.update(&[("a", Ok(users(9).der())), ("b", Ok(full())), ("c", Ok(delta(7, &[&[7]])))]);
    assert_eq!(plane.sources.seen().len(), 3);
    let mut plane = restarted(&plane);
    let (index, reports) = plane.update(&[("b", Ok(full()))]);
    assert!(reports[0].faults.is_empty(), "neither the other scope's number nor the delta's is its own: {reports:?}");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted");
    let (index, reports) = plane.update(&[("b", Ok(full())), ("c", Ok(delta(6, &[&[6]])))]);
    assert_eq!(kinds(&reports[1]), ["older"]);
    assert_eq!(verdict(&index, &client(&[6]), NOW), "revoked");
    assert_eq!(verdict(&index, &client(&[8]), NOW), "permitted", "the full list vouches as before");
}

#[test]
fn an_older_delta_takes_nothing_back() {
    let changes = |number, code| ("b", Ok(deltas::delta(2, number, &[(7, code)]).der()));
    let full = || ("a", Ok(TestCrl::new(3, &[&[7]]).der()));
    let mut plane = Plane::new();
    let (index, _) = plane.update(&[full(), changes(5, deltas::REMOVED)]);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "permitted");
    plane.update(&[full(), changes(6, 1)]);
    let (index, _) = restarted(&plane).update(&[full(), changes(5, deltas::REMOVED)]);
    assert_eq!(verdict(&index, &client(&[7]), NOW), "revoked", "taken back once, and then revoked again");
}

/// A list that is over when it comes may have been replaced by one with a lower number, and isn't remembered.
#[test]
fn expired_and_refused_lists_are_not_remembered() {
    let mut plane = Plane::new();
    plane.read(TestCrl::new(9, &[]).with(|crl| crl.next_update = Some("241231120000Z".to_owned())).der());
    let mut plane = restarted(&plane);
    plane.read(TestCrl::new(9, &[]).with(|crl| crl.signed_by = vec![0]).der());
    plane.read(TestCrl::new(9, &[]).with(|crl| crl.this_update = "250101120000Z".to_owned()).der());
    assert_eq!(plane.sources.seen(), []);
    assert_eq!(plane.read(TestCrl::new(8, &[]).der()).1, None);
    assert_eq!(plane.sources.seen().len(), 1);
}

#[test]
fn the_newer_of_two_memories_counts() {
    let (mut old, mut new) = (Plane::new(), Plane::new());
    old.read(TestCrl::new(4, &[]).der());
    new.read(TestCrl::new(5, &[]).der());
    let (oldest, newest) = (old.sources.seen(), new.sources.seen());
    old.sources.remember(newest.clone());
    new.sources.remember(oldest);
    assert_eq!((old.sources.seen(), new.sources.seen()), (newest.clone(), newest));
}

#[test]
fn lines_of_memory_are_read_strictly() {
    let mut plane = Plane::new();
    plane.read(TestCrl::new(5, &[]).with(|crl| crl.extensions.clear()).der());
    let line = plane.sources.seen()[0].to_string();
    assert!(line.ends_with(" full - 1735603200"), "{line}");
    for broken in [
        "",
        " ",
        "a b c d e",
        &line.replacen(char::is_alphanumeric, "", 1),
        &line.to_uppercase(),
        &format!("{line} "),
        &line.replace('-', "5"),
    ] {
        assert!(broken.parse::<Seen>().is_err(), "{broken:?}");
    }
}
