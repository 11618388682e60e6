//! Who was turned away from the admin listener, and why.

use super::label::labels;

labels! {
    /// Why the admin listener answered nothing.
    pub enum AdminRefusal {
        /// The request came without a token.
        NoToken = "no_token",
        /// The token is not the configured one.
        WrongToken = "wrong_token",
        /// No connection by TLS came about: plain HTTP, no certificate, or one that is not accepted.
        Handshake = "handshake",
        /// The client's certificate is good, and its name is not among those that may administer.
        Name = "name",
        /// A browser asks on behalf of a web page, or by a name that is not this machine's.
        Foreign = "foreign",
        /// There are as many connections from this address as there may be.
        TooMany = "too_many",
        /// The files in force demand less than an address that other machines reach needs, or switch the listener off.
        Unguarded = "unguarded",
    }
}

impl AdminRefusal {
    /// Whether somebody tried to get in: such are in the audit log. The others are counted.
    #[must_use]
    pub const fn is_attempt(self) -> bool {
        matches!(self, Self::WrongToken | Self::Handshake | Self::Name)
    }
}
