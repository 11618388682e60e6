//! What the process asks of its host: enough descriptors, and that nobody reads its memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::config::Settings;

/// Descriptors that are open whatever the clients do: logs, pipes, runtimes, watched directories.
const OWN: u64 = 64;

/// Connections of the two internal listeners together, and the gateway's own requests to registries.
const INTERNAL: u64 = 192;

/// Keeps private keys out of core dumps and away from debuggers of the same user (`PR_SET_DUMPABLE`, prctl(2)).
///
/// To be called before a key is read. Both may be refused by a sandbox, which is said and no reason not to serve.
pub(super) fn protect_memory() -> Vec<String> {
    let mut refused = Vec::new();
    if let Err(e) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        refused.push(format!("the memory of this process can't be closed to debuggers: {e}"));
    }
    // A core goes to a pipe (core(5)) whatever its size, unless the limit is 0 and the process not dumpable.
    if let Err(e) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        refused.push(format!("core dumps can't be switched off: {e}"));
    }
    refused
}

/// Raises the limit on open descriptors as far as the host permits; the limit in force, `None` for none.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// What there is to say about a limit on open descriptors, given what the settings may need.
pub(super) fn judge_descriptor_limit(limit: Option<u64>, settings: &Settings) -> Option<String> {
    let limit = limit?;
    let needed = descriptors_needed(settings);
    if needed <= limit {
        return None;
    }
    let clients = count(settings.limits.connections.all);
    let possible = limit.saturating_sub(needed.saturating_sub(clients));
    Some(format!(
        "at most {limit} descriptors may be open, and limits.max_connections ({clients}) with the connections to the \
         registries may need {needed}: raise the hard limit (LimitNOFILE= of the service, ulimit -Hn), or set \
         limits.max_connections to {possible} at most"
    ))
}

/// Descriptors that may be open at a time: one for each client, one for each request under way at a registry, the
/// listening sockets (twice while a successor takes over), and what is always open.
fn descriptors_needed(settings: &Settings) -> u64 {
    let upstream: u64 = settings.upstreams.iter().map(|upstream| count(upstream.limits.max_connections)).sum();
    let addresses: u64 = settings.listeners.iter().map(|listener| count(listener.addresses.len())).sum();
    let threads = count(settings.threads);
    // Each thread's runtime has three of its own.
    let serving = addresses.saturating_mul(threads).saturating_mul(2).saturating_add(threads.saturating_mul(3));
    [count(settings.limits.connections.all), upstream, serving, INTERNAL, OWN].iter().sum()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX / 16).min(u64::MAX / 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// The reference configuration with this many connections of clients.
    fn settings(connections: usize) -> Settings {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/portcullis.yaml");
        let mut settings = config::load(&file).expect("the reference configuration is valid").value;
        settings.limits.connections.all = connections;
        settings
    }

    #[test]
    fn a_limit_too_low_is_told_with_both_numbers_and_the_way_out() {
        let settings = settings(10_000);
        let needed = descriptors_needed(&settings);
        assert!(needed > 11_000, "clients, requests at the registry, sockets, files: {needed}");
        assert_eq!(judge_descriptor_limit(Some(needed), &settings), None);
        assert_eq!(judge_descriptor_limit(None, &settings), None);
        let said = judge_descriptor_limit(Some(needed - 1), &settings).expect("a warning");
        assert!(said.contains(&format!(" {} ", needed - 1)) && said.contains(&format!(" {needed}:")), "{said}");
        assert!(said.contains("(10000)") && said.contains("set limits.max_connections to 9999"), "{said}");
    }

    #[test]
    fn nobody_reads_the_memory_of_a_protected_process() {
        assert_eq!(protect_memory(), Vec::<String>::new());
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        let core = getrlimit(Resource::Core);
        assert_eq!((core.current, core.maximum), (Some(0), Some(0)));
    }
}
