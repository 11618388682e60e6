//! What became of content that is checked, or that lies elsewhere.

use super::label::labels;

labels! {
    /// What a look at an answer's content against its digest gave.
    pub enum DigestCheck {
        /// The whole content is what the digest names.
        Verified = "verified",
        /// It isn't; none of it was delivered whole.
        Mismatch = "mismatch",
        /// Not checked: the client asked for a part.
        Range = "range",
        /// Not checked: the client asked for the head alone.
        Head = "head",
        /// Not checked: a manifest was asked for by tag, and the upstream named no digest of what it sent.
        NoDigest = "no_digest",
        /// Not checked: the client was sent to another host for the content.
        Redirect = "redirect",
    }
}

labels! {
    /// What became of an upstream's redirect to another host.
    pub enum RedirectResult {
        /// It went to the client as it was.
        Passed = "passed",
        /// The gateway fetched what is there.
        Followed = "followed",
        /// It leads where none may.
        Refused = "refused",
    }
}
