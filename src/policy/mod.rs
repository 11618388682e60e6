//! Who may do what: rules over identities and repositories, compiled once, asked on every request.
//!
//! [`compile()`] turns a policy file into a [`Policy`] or into the list of all its mistakes. [`Policy::decide`] answers a
//! request's [`Facts`] with a [`Decision`]; the proxying code needs the [`Permit`] in it to go on, and only this module
//! can make one.
//!
//! Default deny; a rule that denies wins. Where a certificate is ambiguous (two common names, two URIs), rules that
//! allow don't see the name and rules that deny see all of them. Where the answer depends on whether a tag exists, the
//! decision says so: whoever can look does, and asks again.
//!
//! The module is pure: no I/O, no clock, no HTTP. It knows an identity, actions and repository names.

mod actions;
mod capture;
mod compile;
mod decide;
mod describe;
mod explain;
mod glob;
mod immutable;
pub mod import;
mod index;
mod judgement;
mod limit;
mod lint;
mod names;
mod pattern;
mod rule;
mod selector;
mod standing;
mod suggest;
pub mod suite;
mod template;
#[cfg(test)]
mod tests;
mod times;
mod when;

pub use compile::compile;
pub use decide::{By, Decision, Facts, KnownTags, Need, Permit, READ_ONLY_RULE, Rejection, TlsFacts};
pub use describe::describe;
pub use explain::{Explanation, Finding, RuleTrace, Step};
pub use judgement::{Judged, Judgement};
pub use limit::{Counted, Limit, Quota};
pub use lint::{Kind as LintKind, Lint, lint};
pub use rule::{Aspect, Policy, Rule};
pub use standing::Standing;
pub use times::instant as parse_time;
