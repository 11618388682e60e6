//! What is in force, and until when.

use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntGauge, IntGaugeVec};

use super::crls::{CrlFamilies, CrlState};
use super::family::{Families, Table};
use crate::telemetry::certificates::CertificateKind;
use crate::telemetry::outcome::ReloadResult;

/// What a newly published generation consists of, as far as gauges tell it.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The number of the generation.
    pub generation: u64,
    /// The certificates whose expiry is watched.
    pub certificates: Vec<CertificateExpiry>,
    /// The sources of revocation lists.
    pub crls: Vec<CrlState>,
    /// The names of the upstreams.
    pub upstreams: Vec<String>,
    /// Whether the file of the shadow policy could not be used.
    pub shadow_failed: bool,
    /// The names of the policy's limits.
    pub limits: Vec<String>,
    /// The address of the Redis that replicas share.
    pub redis: Option<String>,
}

/// When a certificate expires.
#[derive(Clone, Debug)]
pub struct CertificateExpiry {
    /// What the certificate is for.
    pub kind: CertificateKind,
    /// A name from the configuration. Of several certificates with the same name the earliest expiry is reported.
    pub name: String,
    /// Its subject on one line; no metric tells it.
    pub subject: String,
    /// `notBefore`, in seconds since the epoch.
    pub not_before: i64,
    /// `notAfter`, in seconds since the epoch.
    pub not_after: i64,
}

#[derive(Debug)]
pub(super) struct GenerationFamilies {
    generation: IntGauge,
    reloads: Table<ReloadResult, IntCounter>,
    reload_failed: IntGauge,
    last_reload: IntGauge,
    certificate_expiry: IntGaugeVec,
    certificate_start: IntGaugeVec,
    shadow_failed: IntGauge,
    pub(super) crls: CrlFamilies,
}

impl GenerationFamilies {
    pub(super) fn new(families: &Families<'_>) -> prometheus::Result<Self> {
        let reloads = families.counters("reloads_total", "Attempts to reload, by how they ended.", &["result"])?;
        Ok(Self {
            generation: families.gauge("config_generation", "The number of the generation in force.")?,
            reloads: Table::new(|result: ReloadResult| reloads.with_label_values(&[result.as_str()])),
            reload_failed: families.gauge(
                "reload_failed",
                "Whether the last reload failed (1), so that the files differ from what is in force.",
            )?,
            last_reload: families.gauge(
                "last_reload_timestamp_seconds",
                "When the files were last found good, in seconds since the epoch.",
            )?,
            certificate_expiry: families.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate from the configuration expires, in seconds since the epoch.",
                &["kind", "name"],
            )?,
            certificate_start: families.gauges(
                "certificate_start_timestamp_seconds",
                "Since when the certificate that expires then is valid, in seconds since the epoch.",
                &["kind", "name"],
            )?,
            shadow_failed: families.gauge(
                "shadow_policy_failed",
                "Whether the shadow policy's file is at fault (1), so that an older one is evaluated, or none.",
            )?,
            crls: CrlFamilies::new(families)?,
        })
    }

    pub(super) fn reload(&self, result: ReloadResult, now: SystemTime) {
        self.reloads.get(result).inc();
        let failed = result == ReloadResult::Failed;
        self.reload_failed.set(i64::from(failed));
        if !failed {
            let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_reload.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn publish(&self, published: &Published) {
        self.generation.set(i64::try_from(published.generation).unwrap_or(i64::MAX));
        self.shadow_failed.set(i64::from(published.shadow_failed));
        self.certificate_expiry.reset();
        self.certificate_start.reset();
        let mut certificates: Vec<_> = published.certificates.iter().collect();
        // Of certificates with the same name the last one set stays: the earliest to expire.
        certificates.sort_by_key(|certificate| Reverse(certificate.not_after));
        for certificate in certificates {
            let labels = [certificate.kind.as_str(), &certificate.name];
            self.certificate_expiry.with_label_values(&labels).set(certificate.not_after);
            self.certificate_start.with_label_values(&labels).set(certificate.not_before);
        }
        self.crls.publish(&published.crls);
    }
}
