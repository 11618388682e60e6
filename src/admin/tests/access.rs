//! Who is let in, and what the page may do.

use super::*;
use crate::config::{AdminToken, Secret};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

impl Fixture {
    /// From now on a token is asked for.
    fn demand_token(&self) {
        let token = AdminToken { secret: Secret::new(TOKEN.to_owned()), file: "token".into() };
        *self.guard.lock().expect("no test panicked") =
            Arc::new(Guard::new(Some(&token), Transport::Plain, Vec::new()));
    }

    fn turned_away(&self) -> Vec<AdminRefusal> {
        std::mem::take(&mut *self.turned_away.lock().expect("no test panicked"))
    }
}

#[test]
fn nothing_is_told_without_the_token() {
    let fixture = Fixture::start();
    fixture.demand_token();
    let asked = |line: &str, fields: &str| {
        ask(fixture.control(), &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    };
    for line in ["GET /", "GET /config", "POST /-/reload", "GET /nowhere"] {
        let answer = asked(line, "");
        assert_eq!(status(&answer), "401", "{line}: {answer}");
        assert!(answer.contains("WWW-Authenticate: Bearer") && answer.contains("WWW-Authenticate: Basic"), "{answer}");
    }
    assert_eq!(fixture.turned_away(), [AdminRefusal::NoToken; 4]);
    let begun = Instant::now();
    assert_eq!(status(&asked("POST /-/reload", "Authorization: Bearer wrong\r\n")), "401");
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(fixture.turned_away(), [AdminRefusal::WrongToken]);
    assert_eq!(fixture.reloads.load(Ordering::SeqCst), 0);
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(status(&asked("POST /-/reload", &right)), "200");
    assert_eq!(status(&asked("GET /", &format!("{right}{right}"))), "400", "which of them?");
    assert_eq!(status(&asked("GET /", &format!("{right}Origin: null\r\n"))), "403", "browsers send it unasked");
    assert_eq!(fixture.turned_away(), [AdminRefusal::Foreign]);
    assert_eq!(status(&ask(fixture.health(), &request("GET", "/livez"))), "200", "probes have none");
}

#[test]
fn the_page_may_do_nothing_but_be_shown() {
    let fixture = Fixture::start();
    for path in ["/", "/status"] {
        let answer = ask(fixture.control(), &request("GET", &format!("{path}?refresh=5")));
        assert_eq!((status(&answer), body(&answer)), ("200", "<p>refresh=5</p>"));
        for field in [
            "Content-Type: text/html; charset=utf-8\r\n",
            "Content-Security-Policy: default-src 'none'; style-src 'sha256-",
            "frame-ancestors 'none'\r\n",
            "X-Frame-Options: DENY\r\n",
            "Referrer-Policy: no-referrer\r\n",
            "Cache-Control: no-store\r\n",
            "X-Content-Type-Options: nosniff\r\n",
        ] {
            assert!(answer.contains(field), "{field}\nnot in\n{answer}");
        }
        assert_eq!(status(&ask(fixture.control(), &request("POST", path))), "405");
        assert_eq!(status(&ask(fixture.health(), &request("GET", path))), "404", "it names clients");
    }
    let plain = ask(fixture.control(), &request("GET", "/config"));
    assert!(plain.contains("Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"), "{plain}");
}

#[test]
fn an_address_of_others_is_silent_without_a_guard() {
    let fixture = Fixture::start();
    let address = AdminAddress::Tcp("0.0.0.0:9091".parse().expect("an address"));
    let site = Site::Control { control: fixture.orders.clone(), address };
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for with_token in [false, true] {
        if with_token {
            fixture.demand_token();
        }
        let answer = runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(4096);
            tokio::io::AsyncWriteExt::write_all(&mut client, request("GET", "/config").as_bytes())
                .await
                .expect("sends");
            serve(&site, &Arc::default(), Box::new(server), None).await.expect("closes");
            let mut answer = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut client, &mut answer).await.expect("receives");
            answer
        });
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(fixture.turned_away(), [AdminRefusal::Unguarded; 2]);
}
