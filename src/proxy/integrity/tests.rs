use super::*;
use crate::oci;

/// The pieces of a body, and what comes with its end.
type Cut<'a> = (&'a [&'a [u8]], Option<&'a [u8]>);

const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn digest(algorithm: Algorithm, content: &[u8]) -> Digest {
    let mut hash = match algorithm {
        Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
        Algorithm::Sha512 => Hash::Sha512(Sha512::new()),
    };
    hash.update(content);
    Digest::parse(&format!("{}:{}", algorithm.as_str(), hash.finish())).expect("a digest")
}

/// What passes before the end, and what the end gives.
fn run(verifier: &mut Verifier, parts: &[&[u8]], end: Option<&[u8]>) -> (Vec<u8>, Result<Option<Bytes>, String>) {
    let mut passed = Vec::new();
    for part in parts {
        let part = verifier.pass(Some(Bytes::copy_from_slice(part)), false).expect("no end yet");
        passed.extend_from_slice(&part.unwrap_or_default());
    }
    (passed, verifier.pass(end.map(Bytes::copy_from_slice), true))
}

#[test]
fn what_is_right_passes_whole_however_it_is_cut() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let expected = digest(algorithm, b"abcdef");
        let cuts: [Cut<'_>; 7] = [
            (&[], Some(b"abcdef")),
            (&[b"abcdef"], None),
            (&[b"abcdef"], Some(b"")),
            (&[b"abc"], Some(b"def")),
            (&[b"a", b"", b"bcd"], Some(b"ef")),
            (&[b"a", b"b", b"c", b"d", b"e", b"f"], None),
            (&[b"", b""], Some(b"abcdef")),
        ];
        for (parts, end) in cuts {
            let (mut passed, last) = run(&mut Verifier::new(expected.clone()), parts, end);
            assert!(passed.len() < 6, "something is held back: {parts:?}");
            passed.extend_from_slice(&last.expect("right").unwrap_or_default());
            assert_eq!(passed, b"abcdef", "{parts:?} {end:?}");
        }
    }
    let (passed, last) = run(&mut Verifier::new(Digest::parse(EMPTY).expect("a digest")), &[], None);
    assert_eq!((passed, last), (Vec::new(), Ok(None)), "nothing is something, too");
}

#[test]
fn what_is_wrong_lacks_its_last_piece() {
    let expected = digest(Algorithm::Sha256, b"abcdef");
    let wrong: [(Cut<'_>, &[u8]); 6] = [
        ((&[], Some(b"abcdeX")), b""),
        ((&[b"abcdeX"], None), b""),
        ((&[b"Xbc", b"def"], None), b"Xbc"),
        ((&[b"abc", b"de"], None), b"abc"),
        ((&[b"abc", b"def"], Some(b"g")), b"abc"),
        ((&[], None), b""),
    ];
    for ((parts, end), before) in wrong {
        let (passed, last) = run(&mut Verifier::new(expected.clone()), parts, end);
        assert_eq!(passed, before, "{parts:?}");
        assert!(last.is_err_and(|found| found.contains("sha256:")), "{parts:?}");
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).expect("a status");
    for (name, value) in headers {
        head.append_header(*name, *value).expect("a header");
    }
    head
}

fn planned(method: &str, path: &str, part: bool, response: &ResponseHeader) -> Result<Plan, String> {
    plan(&oci::route(method, path, None).expect("a route"), part, response)
}

#[test]
fn only_whole_content_with_a_digest_is_hashed() {
    let blob = format!("/v2/a/blobs/{OTHER}");
    let by_digest = format!("/v2/a/manifests/{OTHER}");
    let other = || Digest::parse(OTHER).expect("a digest");
    let verify = || Ok(Plan::Verify(other()));
    let note = |check| Ok(Plan::Note(check));
    let told = answer(200, &[("Docker-Content-Digest", OTHER)]);
    for path in [&blob, &by_digest] {
        assert_eq!(planned("GET", path, false, &answer(200, &[])), verify());
        assert_eq!(planned("GET", path, true, &answer(200, &[])), verify(), "the range was not served");
        assert_eq!(planned("GET", path, false, &told), verify());
        assert_eq!(planned("GET", path, false, &answer(203, &[])), verify());
        assert_eq!(planned("GET", path, true, &answer(206, &[])), Ok(Plan::Part(Some(other()))));
        assert_eq!(planned("HEAD", path, false, &told), note(DigestCheck::Head));
        for status in [304, 307, 404, 416, 500] {
            assert_eq!(planned("GET", path, false, &answer(status, &[])), Ok(Plan::Nothing));
        }
        assert_eq!(planned("DELETE", path, false, &answer(202, &[])), Ok(Plan::Nothing));
        let sha512 = digest(Algorithm::Sha512, b"x");
        let elsewhere = answer(200, &[("Docker-Content-Digest", sha512.as_str())]);
        assert_eq!(planned("GET", path, false, &elsewhere), verify(), "another algorithm says nothing here");
    }
    assert_eq!(planned("GET", "/v2/a/manifests/v1", false, &told), verify());
    assert_eq!(planned("GET", "/v2/a/manifests/v1", false, &answer(200, &[])), note(DigestCheck::NoDigest));
    let nonsense = answer(200, &[("Docker-Content-Digest", "md5:x")]);
    assert_eq!(planned("GET", "/v2/a/manifests/v1", false, &nonsense), note(DigestCheck::NoDigest));
    let kind = ("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws");
    let signed = answer(200, &[kind, ("Docker-Content-Digest", OTHER)]);
    assert_eq!(planned("GET", "/v2/a/manifests/v1", false, &signed), note(DigestCheck::NoDigest));
    assert_eq!(planned("GET", &by_digest, false, &signed), verify(), "no way around the check");
    for path in ["/v2/", "/v2/a/tags/list"] {
        assert_eq!(planned("GET", path, false, &told), Ok(Plan::Nothing));
    }
    let empty = format!("/v2/a/blobs/{EMPTY}");
    let nothing = answer(200, &[("Content-Length", "0")]);
    assert_eq!(planned("GET", &empty, false, &nothing), note(DigestCheck::Verified));
}

#[test]
fn what_cannot_be_the_content_is_refused_by_its_head() {
    let blob = format!("/v2/a/blobs/{OTHER}");
    let refused = [
        answer(200, &[("Docker-Content-Digest", EMPTY)]),
        answer(200, &[("Docker-Content-Digest", OTHER), ("Docker-Content-Digest", OTHER)]),
        answer(206, &[]),
        answer(200, &[("Content-Encoding", "gzip")]),
        answer(200, &[("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]),
        answer(200, &[("Content-Length", "0")]),
        answer(204, &[]),
    ];
    for response in refused {
        assert!(planned("GET", &blob, false, &response).is_err(), "{response:?}");
    }
    let lie = answer(200, &[("Docker-Content-Digest", EMPTY)]);
    assert!(planned("HEAD", &blob, false, &lie).is_err());
    assert!(planned("GET", "/v2/a/manifests/v1", false, &answer(206, &[])).is_err());
}
