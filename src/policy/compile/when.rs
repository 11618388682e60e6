//! From the circumstances of a rule as they are written to those that are compared.

use ipnet::IpNet;

use crate::config::policy::{Day, HoursFile, LifetimeFile, WhenFile};
use crate::config::{Fault, HumanDuration};
use crate::policy::selector::parse_network;
use crate::policy::times;
use crate::policy::when::{DAY, Hours, Lifetime, When};

/// Compiles the circumstances, adding what is wrong with them to `faults`. Faults make the result meaningless.
pub(super) fn compile(file: &WhenFile, path: &str, faults: &mut Vec<Fault>) -> When {
    if *file == WhenFile::default() {
        faults.push(Fault::new(path, "is empty: name at least one circumstance, or remove the key"));
    }
    let from = instant(file.from.as_deref(), &format!("{path}.from"), faults);
    let until = instant(file.until.as_deref(), &format!("{path}.until"), faults);
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        faults.push(Fault::new(format!("{path}.until"), "is not after from: the rule would never apply"));
    }
    When {
        networks: networks(file.client.as_deref(), &format!("{path}.client"), faults),
        from,
        until,
        hours: windows(file.hours.as_deref(), &format!("{path}.hours"), faults),
        lifetime: lifetime(file.certificate_lifetime.as_ref(), &format!("{path}.certificate_lifetime"), faults),
        min_tls: file.min_tls_version,
    }
}

fn instant(text: Option<&str>, path: &str, faults: &mut Vec<Fault>) -> Option<u64> {
    times::instant(text?).map_err(|message| faults.push(Fault::new(path, message))).ok()
}

fn networks(texts: Option<&[String]>, path: &str, faults: &mut Vec<Fault>) -> Box<[IpNet]> {
    if texts.is_some_and(<[String]>::is_empty) {
        faults.push(Fault::new(path, "is empty and no client could be there: name a network, or remove the key"));
    }
    let mut networks = Vec::new();
    for (i, text) in texts.unwrap_or_default().iter().enumerate() {
        match parse_network(text) {
            // Clients of IPv4 are compared as such.
            Ok(IpNet::V6(network)) if network.addr().to_ipv4_mapped().is_some() => {
                let message = format!("{network} is IPv4 in the clothes of IPv6: write it as IPv4");
                faults.push(Fault::new(format!("{path}[{i}]"), message));
            }
            Ok(network) => networks.push(network),
            Err(message) => faults.push(Fault::new(format!("{path}[{i}]"), message)),
        }
    }
    networks.into()
}

fn windows(files: Option<&[HoursFile]>, path: &str, faults: &mut Vec<Fault>) -> Box<[Hours]> {
    if files.is_some_and(<[HoursFile]>::is_empty) {
        faults.push(Fault::new(path, "is empty and the rule would never apply: name a window, or remove the key"));
    }
    let files = files.unwrap_or_default().iter().enumerate();
    files.filter_map(|(i, file)| window(file, &format!("{path}[{i}]"), faults)).collect()
}

fn window(file: &HoursFile, path: &str, faults: &mut Vec<Fault>) -> Option<Hours> {
    if file.days.is_none() && file.from.is_none() && file.until.is_none() {
        faults.push(Fault::new(path, "is always: name days, from or until"));
    }
    if file.days.as_ref().is_some_and(Vec::is_empty) {
        faults.push(Fault::new(format!("{path}.days"), "is empty: name a day, or remove the key for all of them"));
    }
    let mut read = |key: &str, text: Option<&str>, read: fn(&str) -> Result<i64, String>, otherwise: i64| {
        let read = text.map_or(Ok(otherwise), read);
        read.map_err(|message| faults.push(Fault::new(format!("{path}.{key}"), message))).ok()
    };
    let from = read("from", file.from.as_deref(), times::of_day, 0);
    let until = read("until", file.until.as_deref(), times::of_day, DAY);
    let ahead = read("zone", file.zone.as_deref(), times::zone, 0);
    let (from, until, ahead) = (from?, until?, ahead?);
    if from == until || from == DAY {
        faults.push(Fault::new(format!("{path}.from"), "is where the window ends: there would be no such time"));
    }
    let days = file.days.as_ref().map_or(0x7f, |days| days.iter().fold(0, |bits, day| bits | 1 << *day as u8));
    Some(Hours { days, from, until, ahead, text: written(file).into() })
}

/// A window on one line.
fn written(file: &HoursFile) -> String {
    let days: Vec<_> = file.days.iter().flatten().map(|day| short(*day)).collect();
    let days = if days.is_empty() { "every day".to_owned() } else { days.join(", ") };
    let (from, until) = (file.from.as_deref().unwrap_or("00:00"), file.until.as_deref().unwrap_or("24:00"));
    format!("{days} {from} to {until} {}", file.zone.as_deref().unwrap_or("UTC"))
}

fn short(day: Day) -> &'static str {
    match day {
        Day::Mon => "mon",
        Day::Tue => "tue",
        Day::Wed => "wed",
        Day::Thu => "thu",
        Day::Fri => "fri",
        Day::Sat => "sat",
        Day::Sun => "sun",
    }
}

fn lifetime(file: Option<&LifetimeFile>, path: &str, faults: &mut Vec<Fault>) -> Option<Lifetime> {
    let file = file?;
    let seconds = |span: HumanDuration| span.0.as_secs();
    let lifetime =
        Lifetime { at_least: file.at_least.map_or(0, seconds), at_most: file.at_most.map_or(u64::MAX, seconds) };
    if *file == LifetimeFile::default() {
        faults.push(Fault::new(path, "is empty: say at_least or at_most"));
    } else if lifetime.at_least > lifetime.at_most {
        faults.push(Fault::new(format!("{path}.at_most"), "is less than at_least: the rule would never apply"));
    }
    Some(lifetime)
}
