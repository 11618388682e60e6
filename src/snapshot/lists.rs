//! Revocation lists from files: each source by itself, each with its own last good state.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::parts::Report;
use super::unix_now;
use crate::config::{self, ByteSize, CrlSource, Settings, list_directory, read_bounded};
use crate::revocation::{self, Index, Issuer, SourceInput, SourceReport, Sources};
use crate::tls;

/// Files a directory of revocation lists may hold.
const MAX_CRL_FILES: usize = 1024;

/// How revocation is judged before the first configuration says it.
pub(super) fn default_revocation() -> revocation::Settings {
    revocation::Settings {
        freshness: revocation::Freshness::Required,
        check: revocation::Check::Chain,
        grace: Duration::ZERO,
        clock_skew: Duration::ZERO,
    }
}

fn revocation_settings(configured: &config::Revocation) -> revocation::Settings {
    revocation::Settings {
        freshness: match configured.freshness {
            config::Freshness::Required => revocation::Freshness::Required,
            config::Freshness::Optional => revocation::Freshness::Optional,
        },
        check: match configured.check {
            config::ChainCheck::Chain => revocation::Check::Chain,
            config::ChainCheck::Leaf => revocation::Check::Leaf,
        },
        grace: configured.grace,
        clock_skew: configured.clock_skew,
    }
}

/// Reads every source and gives the index of what is in force. What is wrong with a source is reported and keeps nothing
/// else from being published.
pub(super) fn load_crls(
    sources: &mut Sources,
    settings: &Settings,
    issuers: &[Issuer],
    report: &mut Report<'_>,
) -> (Index, Vec<SourceReport>) {
    let configured = &settings.revocation;
    sources.set_settings(revocation_settings(configured));
    let is_configured = |key: &str| {
        let key = Path::new(key);
        configured.sources.iter().any(|source| match source {
            CrlSource::File(path) => key == path,
            CrlSource::Directory(path) => key.parent() == Some(path),
        })
    };
    sources.retain(is_configured);
    if configured.sources.is_empty() {
        return (Index::disabled(), Vec::new());
    }
    let mut inputs = Vec::new();
    // The configuration key of each input, for messages.
    let mut places: HashMap<String, String> = HashMap::new();
    for (index, source) in configured.sources.iter().enumerate() {
        match source {
            CrlSource::File(path) => {
                places.insert(path.display().to_string(), format!("revocation.crls[{index}].file"));
                inputs.push(path.clone());
            }
            CrlSource::Directory(path) => {
                let place = format!("revocation.crls[{index}].directory");
                match list_directory(path, MAX_CRL_FILES) {
                    Ok(files) => {
                        for file in files {
                            places.insert(file.display().to_string(), place.clone());
                            inputs.push(file);
                        }
                    }
                    Err(e) => {
                        report
                            .error(&place, format!("\"{}\": {e} (the last good lists stay in force)", path.display()));
                    }
                }
            }
        }
    }
    let verify = |data: &revocation::SignedData<'_>, spki: &[u8]| tls::verify_signed_data(data, spki);
    // Read one after the other: of large lists only one is in memory at a time.
    let inputs = inputs.iter().map(|path| read_crl(path));
    let (index, reports) = sources.update(inputs, issuers, unix_now(), &verify);
    for source in &reports {
        let place = places.get(&source.key).map_or("revocation.crls", String::as_str);
        for fault in &source.faults {
            report.error(place, format!("\"{}\": {fault} (the last good list, if any, stays in force)", source.key));
        }
    }
    (index, reports)
}

fn read_crl(path: &Path) -> SourceInput {
    let limit = ByteSize::from_mib(revocation::MAX_SOURCE as u64 / (1024 * 1024));
    let bytes = read_bounded(path, limit).map_err(|e| e.to_string());
    SourceInput { key: path.display().to_string(), bytes, issuer: None }
}
