//! Other programs' access lists as policies.
//!
//! docker_auth (`cesanta/docker_auth`) goes through its `acl` from the top, and the first entry that matches decides. Here
//! the order of rules means nothing and a denial wins. An entry is carried over if its meaning can be kept: what an entry
//! before it decides otherwise is denied by a rule of its own, unless that would take from what still earlier entries
//! give. Whatever can't be kept is left out and reported, together with the entries behind it that would give more than
//! they did. So the policy never allows what the list does not.
//!
//! A client without the name that stands for the account would have the empty account there. Here nothing is granted to
//! it: what is granted to everyone is granted to all who have such a name.

mod account;
mod entry;
mod pattern;
mod write;

use serde_json::Value;

use self::entry::{Actions, Entry};
use crate::config::Fault;

pub use self::account::AccountIs;

/// A list as a policy.
#[derive(Debug)]
pub struct Imported {
    /// The policy, as a file.
    pub policy: String,
    /// What could not be carried over. The policy allows less for it.
    pub lost: Vec<Fault>,
    /// What to know about the rest.
    pub remarks: Vec<Fault>,
    /// How many entries were carried over.
    pub carried: usize,
}

/// Keys of a docker_auth configuration that say who may do what, beside `acl`.
const OTHER_AUTHORIZERS: [&str; 6] = ["acl_mongo", "acl_xorm", "ext_authz", "plugin_authz", "casbin_authz", "acl_gorm"];

/// Keys that say who somebody is.
const AUTHENTICATORS: [&str; 12] = [
    "users",
    "ldap_auth",
    "google_auth",
    "github_auth",
    "gitlab_auth",
    "oidc_auth",
    "mongo_auth",
    "xorm_auth",
    "gorm_auth",
    "ext_auth",
    "plugin_authn",
    "casbin_auth",
];

/// Makes a policy of a docker_auth configuration, or of the `acl` alone.
///
/// # Errors
/// The value is neither.
pub fn docker_auth(value: &Value, account_is: &AccountIs) -> Result<Imported, Vec<Fault>> {
    let mut remarks = Vec::new();
    let mut lost = Vec::new();
    let (list, path) = match value {
        Value::Array(list) => (list, ""),
        Value::Object(keys) => {
            for key in keys.keys().map(String::as_str) {
                if AUTHENTICATORS.contains(&key) {
                    let message = "not carried over: clients are known by their certificates, not by passwords";
                    remarks.push(Fault::new(key, message));
                } else if OTHER_AUTHORIZERS.contains(&key) {
                    let message =
                        "not carried over: docker_auth asks this, too, and what it allows is not in the policy";
                    lost.push(Fault::new(key, message));
                }
            }
            match keys.get("acl") {
                Some(Value::Array(list)) => (list, "acl"),
                Some(_) => return Err(vec![Fault::new("acl", "must be a list of entries with match and actions")]),
                None => return Err(vec![Fault::new("", "this is no docker_auth configuration: it has no acl")]),
            }
        }
        _ => return Err(vec![Fault::new("", "this is no docker_auth configuration, and no acl")]),
    };
    let entries = list.iter().enumerate();
    let entries: Vec<_> = entries.map(|(i, entry)| Entry::read(entry, format!("{path}[{i}]"), account_is)).collect();
    let order = Order::of(&entries);
    lost.extend(order.lost);
    remarks.extend(entries.iter().flat_map(|entry| entry.remarks.iter().cloned()));
    let carried = order.accepted.iter().filter(|accepted| **accepted).count();
    let policy = write::policy(&entries, &order.accepted, &order.limits, account_is);
    Ok(Imported { policy, lost, remarks, carried })
}

/// What becomes of each entry.
struct Order {
    accepted: Vec<bool>,
    /// What must be denied where an entry matches, since one behind it would give it.
    limits: Vec<Actions>,
    lost: Vec<Fault>,
}

impl Order {
    fn of(entries: &[Entry]) -> Self {
        let none = vec![Actions::default(); entries.len()];
        let mut order = Self { accepted: vec![false; entries.len()], limits: none, lost: Vec::new() };
        for (position, entry) in entries.iter().enumerate() {
            match entry.fault.clone().map_or_else(|| order.limits_for(position, entry, entries), Err) {
                Ok(limits) => {
                    for (limit, more) in order.limits.iter_mut().zip(limits) {
                        *limit = limit.with(more);
                    }
                    match (&entry.ungranted, order.accepted.get_mut(position)) {
                        (Some(fault), _) => order.lost.push(fault.clone()),
                        (None, Some(accepted)) => *accepted = true,
                        (None, None) => {}
                    }
                }
                Err(fault) => order.lost.push(fault),
            }
        }
        order
    }

    /// What must be denied where earlier entries match for this one to give no more than it did.
    fn limits_for(&self, position: usize, entry: &Entry, entries: &[Entry]) -> Result<Vec<Actions>, Fault> {
        let mut limits = Vec::new();
        for (before, earlier) in entries.iter().enumerate().take(position) {
            let missing = entry.actions.without(earlier.actions).both(earlier.common(entry));
            limits.push(missing);
            if missing.is_empty() {
                continue;
            }
            let fault = |why: String| Err(Fault::new(&*entry.path, format!("not carried over: {why}")));
            if earlier.fault.is_some() || earlier.is_narrow {
                return fault(format!(
                    "{} comes first where both match and allows less, and it can't be put into a rule",
                    earlier.path
                ));
            }
            // A denial would win over what still earlier entries give.
            let robbed = entries.iter().take(before).zip(&self.accepted).find(|(first, accepted)| {
                **accepted && !first.actions.both(missing).both(first.common(earlier)).is_empty()
            });
            if let Some((first, _)) = robbed {
                return fault(format!(
                    "{} allows less than this where both match, and to deny that would take from {}",
                    earlier.path, first.path
                ));
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests;
