use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

mod access;

const LOOPBACK: &str = "127.0.0.1:0";

/// For listeners that accept at once.
fn open() -> watch::Receiver<bool> {
    watch::channel(true).1
}

/// Both listeners on free ports, with what can be changed and counted about them.
struct Fixture {
    admin: Admin,
    ready: Arc<Mutex<Result<(), String>>>,
    reload: Arc<Mutex<Result<String, String>>>,
    reloads: Arc<AtomicUsize>,
    guard: Arc<Mutex<Arc<Guard>>>,
    turned_away: Arc<Mutex<Vec<AdminRefusal>>>,
    orders: Control,
}

impl Fixture {
    fn start() -> Self {
        Self::on(AdminAddress::Tcp(LOOPBACK.parse().expect("an address")))
    }

    fn on(address: AdminAddress) -> Self {
        let ready = Arc::new(Mutex::new(Ok(())));
        let reload = Arc::new(Mutex::new(Ok("generation 2".to_owned())));
        let reloads = Arc::new(AtomicUsize::new(0));
        let guard = Arc::<Mutex<Arc<Guard>>>::default();
        let turned_away = Arc::<Mutex<Vec<AdminRefusal>>>::default();
        let metrics = Metrics::new("1.2.3", "boringssl").expect("the families are consistent");
        let health = Health {
            ready: {
                let ready = Arc::clone(&ready);
                Arc::new(move || ready.lock().expect("no test panicked").clone())
            },
            metrics: Arc::new(metrics),
        };
        let (demanded, noted) = (Arc::clone(&guard), Arc::clone(&turned_away));
        let control = Control {
            guard: Arc::new(move || demanded.lock().expect("no test panicked").clone()),
            refused: Arc::new(move |why, _, _| noted.lock().expect("no test panicked").push(why)),
            status: Arc::new(|query| Box::pin(async move { Ok(format!("<p>{query}</p>")) })),
            config: Arc::new(|| "listeners: []".to_owned()),
            revocation: Arc::new(|format| format!("{format:?}")),
            explain: Arc::new(|query, format| {
                let answer = match query.as_str() {
                    "" => Err(Unanswered::Senseless("ask something".to_owned())),
                    "decision=x" => Err(Unanswered::NotKnown("who knows".to_owned())),
                    query => Ok(format!("{query} {format:?}")),
                };
                Box::pin(async move { answer })
            }),
            reload: {
                let (reload, reloads) = (Arc::clone(&reload), Arc::clone(&reloads));
                Arc::new(move || {
                    reloads.fetch_add(1, Ordering::SeqCst);
                    let result = reload.lock().expect("no test panicked").clone();
                    Box::pin(async move {
                        time::sleep(Duration::from_millis(20)).await;
                        result
                    })
                })
            },
            upgrade: Arc::new(|| Box::pin(async { Err("no successor here".to_owned()) })),
        };
        let loopback = LOOPBACK.parse().expect("an address");
        let orders = control.clone();
        let admin =
            start(Some((loopback, health)), Some((address, control)), Adopted::default(), open()).expect("starts");
        Self { admin, ready, reload, reloads, guard, turned_away, orders }
    }

    fn health(&self) -> TcpStream {
        TcpStream::connect(self.admin.health_address().expect("is on")).expect("connects")
    }

    fn control(&self) -> TcpStream {
        match self.admin.control_address() {
            Some(AdminAddress::Tcp(address)) => TcpStream::connect(address).expect("connects"),
            other => panic!("not on TCP: {other:?}"),
        }
    }
}

/// Sends the bytes and reads until the end.
fn ask(mut stream: impl io::Read + io::Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receives");
    answer
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a complete head").1
}

#[test]
fn probes_are_answered() {
    let fixture = Fixture::start();
    assert_eq!(body(&ask(fixture.health(), &request("GET", "/livez"))), "ok\n");
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/readyz"))), "200");
    *fixture.ready.lock().expect("no test panicked") = Err("draining".to_owned());
    let answer = ask(fixture.health(), &request("GET", "/readyz?verbose"));
    assert_eq!((status(&answer), body(&answer)), ("503", "draining\n"));
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/livez"))), "200");
}

#[test]
fn metrics_are_in_the_text_format() {
    let fixture = Fixture::start();
    let answer = ask(fixture.health(), &request("GET", "/metrics"));
    assert!(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(body(&answer).contains("portcullis_build_info{backend=\"boringssl\",version=\"1.2.3\"} 1\n"));
    let length = format!("Content-Length: {}\r\n", body(&answer).len());
    assert!(answer.contains(&length), "{answer}");
}

#[test]
fn head_is_get_without_the_body() {
    let fixture = Fixture::start();
    for path in ["/livez", "/readyz", "/nowhere"] {
        let get = ask(fixture.health(), &request("GET", path));
        let head = ask(fixture.health(), &request("HEAD", path));
        assert_eq!(head, get.strip_suffix(body(&get)).expect("ends with its body"));
    }
}

#[test]
fn nothing_else_is_there() {
    let fixture = Fixture::start();
    for path in ["/", "/livez/", "//livez", "/config", "/-/reload", "/debug/pprof", "/%6civez"] {
        assert_eq!(status(&ask(fixture.health(), &request("GET", path))), "404", "{path}");
    }
    for path in ["/metrics", "/livez", "/config/", "/status/"] {
        assert_eq!(status(&ask(fixture.control(), &request("GET", path))), "404", "{path}");
    }
    for (method, path) in [("POST", "/metrics"), ("get", "/livez"), ("DELETE", "/readyz")] {
        let answer = ask(fixture.health(), &request(method, path));
        assert_eq!(status(&answer), "405", "{method} {path}");
        assert!(answer.contains("Allow: GET, HEAD\r\n"), "{answer}");
    }
    let answer = ask(fixture.control(), &request("GET", "/-/reload"));
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("Allow: POST\r\n"), "{answer}");
    assert_eq!(fixture.reloads.load(Ordering::SeqCst), 0);
}

#[test]
fn a_reload_is_awaited_and_its_result_told() {
    let fixture = Fixture::start();
    let answer = ask(fixture.control(), &request("POST", "/-/reload"));
    assert_eq!((status(&answer), body(&answer)), ("200", "generation 2\n"));
    *fixture.reload.lock().expect("no test panicked") = Err("portcullis.yaml:3: listeners: missing".to_owned());
    let answer = ask(fixture.control(), &request("POST", "/-/reload"));
    assert_eq!((status(&answer), body(&answer)), ("500", "portcullis.yaml:3: listeners: missing\n"));
    assert_eq!(body(&ask(fixture.control(), &request("GET", "/config"))), "listeners: []\n");
}

#[test]
fn revocation_is_told_to_people_and_to_programs() {
    let fixture = Fixture::start();
    for (path, fields, shown, kind) in [
        ("/revocation", "", "Text\n", "text/plain"),
        ("/revocation?x=1", "", "Text\n", "text/plain"),
        ("/revocation?format=json", "", "Json", "application/json"),
        ("/revocation", "Accept: application/json\r\n", "Json", "application/json"),
        ("/revocation", "Accept: */*\r\n", "Text\n", "text/plain"),
    ] {
        let answer = ask(fixture.control(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!((status(&answer), body(&answer)), ("200", shown), "{path} {fields}");
        assert!(answer.contains(&format!("Content-Type: {kind}")), "{answer}");
    }
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/revocation"))), "404", "it names clients");
}

#[test]
fn an_upgrade_is_awaited_and_its_result_told() {
    let fixture = Fixture::start();
    let answer = ask(fixture.control(), &request("POST", "/-/upgrade"));
    assert_eq!((status(&answer), body(&answer)), ("500", "no successor here\n"));
    assert_eq!(status(&ask(fixture.control(), &request("GET", "/-/upgrade"))), "405");
    assert_eq!(status(&ask(fixture.health(), &request("POST", "/-/upgrade"))), "404");
}

#[test]
fn what_is_being_answered_survives_the_release() {
    let mut fixture = Fixture::start();
    let address = fixture.admin.health_address().expect("is on");
    let mut asked = fixture.control();
    asked.write_all(b"POST /-/reload HTTP/1.1\r\nHost: localhost\r\n").expect("sends");
    // The connection is accepted before the release: what is asked later on the same listener has its answer.
    assert_eq!(status(&ask(fixture.control(), &request("GET", "/config"))), "200");
    let copies = fixture.admin.take_copies();
    fixture.admin.release();
    drop(copies);
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < end, "still accepted");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(status(&ask(asked, "\r\n")), "200");
}

#[test]
fn a_web_page_can_neither_read_nor_reload() {
    let fixture = Fixture::start();
    let foreign = [
        "Host: evil.example:9091\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\norigin: null\r\n",
        // An image or a script of a page: no Origin.
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
        "Host: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nsec-fetch-site:\r\n",
        "Host:\r\n",
        "",
    ];
    for fields in foreign {
        for line in
            ["POST /-/reload HTTP/1.1", "GET /config HTTP/1.1", "GET /explain?x HTTP/1.1", "GET /nowhere HTTP/1.1"]
        {
            let answer = ask(fixture.control(), &format!("{line}\r\n{fields}\r\n"));
            assert_eq!(status(&answer), "403", "{line} {fields}");
            assert!(!answer.contains("listeners"), "{answer}");
        }
    }
    let answer = ask(fixture.control(), "GET /config HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n");
    assert_eq!(status(&answer), "400");
    let answer = ask(fixture.control(), "GET http://evil.example/config HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&answer), "400");
    assert_eq!(fixture.reloads.load(Ordering::SeqCst), 0);
    // Somebody types the address, or reads on from there.
    for site in ["none", "same-origin"] {
        let head = format!("GET /config HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: {site}\r\n\r\n");
        assert_eq!(status(&ask(fixture.control(), &head)), "200", "{site}");
    }
}

#[test]
fn a_unix_socket_serves_whatever_the_host_and_no_web_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("admin.sock");
    let fixture = Fixture::on(AdminAddress::Unix(path.clone()));
    let connect = || UnixStream::connect(&path).expect("connects");
    assert_eq!(status(&ask(connect(), "GET /config HTTP/1.1\r\nHost: portcullis\r\n\r\n")), "200");
    assert_eq!(status(&ask(connect(), "GET /config HTTP/1.1\r\nHost: portcullis\r\nOrigin: x\r\n\r\n")), "403");
    drop(fixture);
    UnixStream::connect(&path).expect_err("is gone");
}

#[test]
fn heads_are_bounded() {
    let fixture = Fixture::start();
    let long = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(status(&ask(fixture.health(), &long)), "431");
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(1_000));
    assert_eq!(status(&ask(fixture.health(), &many)), "431");
    for garbage in
        ["\u{16}\u{3}\u{1} TLS\r\n\r\n", "GET\r\n\r\n", "GET livez HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n"]
    {
        assert_eq!(status(&ask(fixture.health(), garbage)), "400", "{garbage:?}");
    }
}

#[test]
fn a_head_may_arrive_in_pieces_and_a_body_is_no_harm() {
    let fixture = Fixture::start();
    let mut stream = fixture.control();
    stream.set_nodelay(true).expect("sets");
    for piece in ["POST /-/re", "load HTTP/1.1\r\nHost: 127.0.0.1\r", "\nContent-Length: 4\r\n\r", "\n{}\r\n"] {
        stream.write_all(piece.as_bytes()).expect("sends");
        thread::sleep(Duration::from_millis(20));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receives");
    assert_eq!(status(&answer), "200");
}

#[test]
fn silent_clients_make_room_for_others() {
    let fixture = Fixture::start();
    let silent: Vec<_> = (0..MAX_CONNECTIONS).map(|_| fixture.health()).collect();
    let begun = Instant::now();
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/livez"))), "200");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn clients_that_leave_early_are_no_harm() {
    let fixture = Fixture::start();
    for _ in 0..2 * MAX_CONNECTIONS {
        drop(fixture.health());
        let mut stream = fixture.health();
        stream.write_all(b"GET /metrics HT").expect("sends");
        stream.shutdown(Shutdown::Write).expect("closes");
    }
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/livez"))), "200");
}

#[test]
fn everything_off_is_nothing() {
    let admin = start(None, None, Adopted::default(), open()).expect("starts");
    assert_eq!((admin.health_address(), admin.control_address()), (None, None));
}

#[test]
fn dropping_the_handle_ends_the_listeners() {
    let fixture = Fixture::start();
    let address = fixture.admin.health_address().expect("is on");
    let open = fixture.health();
    drop(fixture);
    TcpStream::connect(address).expect_err("nobody listens");
    drop(open);
}

#[test]
fn nothing_is_accepted_before_the_listeners_are_opened() {
    let metrics = Arc::new(Metrics::new("1.2.3", "boringssl").expect("the families are consistent"));
    let health = || Health { ready: Arc::new(|| Ok(())), metrics: metrics.clone() };
    let loopback = LOOPBACK.parse().expect("an address");
    let (open, opened) = watch::channel(false);
    let admin = start(Some((loopback, health())), None, Adopted::default(), opened).expect("starts");
    let mut early = TcpStream::connect(admin.health_address().expect("is on")).expect("is queued");
    early.write_all(request("GET", "/readyz").as_bytes()).expect("sends");
    early.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket can wait");
    early.read(&mut [0]).expect_err("nobody answers");
    open.send_replace(true);
    assert_eq!(status(&ask(early, "")), "200");
    drop(admin);
    // Nor does one that is never opened last.
    drop(start(Some((loopback, health())), None, Adopted::default(), watch::channel(false).1).expect("starts"));
}

#[test]
fn questions_are_answered_in_the_form_that_is_asked_for() {
    let fixture = Fixture::start();
    let get = |target: &str| ask(fixture.control(), &request("GET", target));
    let answer = get("/explain?method=GET&format=json");
    assert_eq!((status(&answer), body(&answer)), ("200", "method=GET&format=json Json"));
    assert!(answer.contains("Content-Type: application/json\r\n"), "{answer}");
    assert_eq!(body(&get("/explain?method=GET")), "method=GET Text\n");
    assert_eq!(status(&get("/explain")), "400");
    assert_eq!(status(&get("/explain?decision=x")), "404");
    let posted = ask(fixture.control(), &request("POST", "/explain"));
    assert_eq!(status(&posted), "405");
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/explain"))), "404");
}
