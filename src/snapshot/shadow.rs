//! The shadow policy of a generation. A mistake in its file holds up nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::parts::{Report, load_policy};
use crate::policy::Policy;

/// What is evaluated beside the policy in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Shadow {
    /// With the file that it was read from.
    last_good: Option<(PathBuf, Arc<Policy>)>,
    failed: bool,
}

impl Shadow {
    /// Reads the shadow policy that the configuration names. If that can't be used, the one of the same file that was in
    /// use before stays.
    pub(super) fn load(
        file: Option<&Path>,
        before: Option<&Self>,
        inputs: &mut Vec<PathBuf>,
        report: &mut Report<'_>,
    ) -> Self {
        let Some(file) = file else { return Self::default() };
        if let Some(policy) = load_policy(file, inputs, report) {
            return Self { last_good: Some((file.to_owned(), Arc::new(policy))), failed: false };
        }
        let kept = before.and_then(|before| before.last_good.clone()).filter(|(of, _)| of == file);
        let rest = if kept.is_some() { "the one before is evaluated on" } else { "none is evaluated" };
        report.error("shadow_policy", format!("\"{}\" can't be used; {rest}", file.display()));
        Self { last_good: kept, failed: true }
    }

    /// The policy to evaluate.
    pub(super) fn policy(&self) -> Option<Arc<Policy>> {
        self.last_good.as_ref().map(|(_, policy)| policy.clone())
    }

    /// Whether its file is at fault.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }
}
