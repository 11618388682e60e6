//! Looking at certificates as the gateway's handshake would, without a connection.

use super::super::TrustBundle;
use super::super::backend;
use super::super::lib::error::ErrorStack;
use super::super::lib::stack::Stack;
use super::super::lib::x509::{X509, X509Ref, X509StoreContext};

/// Builds and verifies the path of `leaf` (DER), by way of `intermediates` if need be, to an anchor of `trust`, now.
///
/// Gives the path as `PeerIdentity::from_path` takes it: leaf first, anchor last.
///
/// # Errors
///
/// The library's verdict, with the position in the path (0 is the leaf).
pub fn verified_path(leaf: &[u8], intermediates: &[Vec<u8>], trust: &TrustBundle) -> Result<Vec<Vec<u8>>, String> {
    let verdict = (|| {
        let leaf = X509::from_der(leaf)?;
        let mut sent = Stack::new()?;
        for intermediate in intermediates {
            sent.push(X509::from_der(intermediate)?)?;
        }
        let store = trust.store()?;
        let mut context = X509StoreContext::new()?;
        context.init(&store, &leaf, &sent, |context| {
            if !context.verify_cert()? {
                let (_, text) = backend::verify_outcome(context);
                return Ok(Err(format!("{text} (at depth {})", context.error_depth())));
            }
            let path = context.chain().into_iter().flatten().map(X509Ref::to_der);
            path.collect::<Result<Vec<_>, ErrorStack>>().map(Ok)
        })
    })();
    verdict.unwrap_or_else(|stack| Err(stack.to_string()))
}
