//! What is particular to BoringSSL.

#![expect(unsafe_code, reason = "what the safe binding lacks; each block says why it is sound")]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pingora::tls::ssl_sys as ffi;

use super::acceptor::SniTable;
use super::lib::asn1::Asn1StringRef;
use super::lib::hash::MessageDigest;
use super::lib::ssl::{ExtensionType, NameType, SelectCertError, SslContextBuilder, SslRef, TicketKeyCallbackResult};
use super::lib::symm::Cipher;
use super::lib::x509::verify::X509VerifyFlags;
use super::lib::x509::{X509StoreContextRef, X509VerifyError, X509VerifyResult};
use super::probe::notes_index;
use super::tickets::{TicketKey, TicketKeys};
use super::verify::slot_index;

pub(super) const NAME: &str = "boringssl";

/// Whether one context can hold an RSA and an ECDSA certificate and choose between them. BoringSSL's can't without
/// credentials, which have no safe binding: `choose_certificate` picks among contexts instead.
pub(super) const MIXED_KEYS_IN_ONE_CONTEXT: bool = false;

/// X509_V_ERR_INVALID_CA: an issuer on the path is no CA.
pub(super) const INVALID_CA: i32 = 24;

/// The outcome the library put into `context`: its X509_V_ERR code and text.
pub(super) fn verify_outcome(context: &X509StoreContextRef) -> (i32, String) {
    match context.verify_result() {
        Ok(()) => (0, "unspecified".to_owned()),
        Err(e) => (e.as_raw(), e.error_string().to_owned()),
    }
}

/// The verify result for one of the library's own X509_V_ERR codes.
pub(super) fn verify_error(code: i32) -> X509VerifyResult {
    // SAFETY: `from_raw` asks for a code the library knows; the callers pass constants of x509.h or codes that the
    // library itself reported.
    unsafe { X509VerifyError::from_raw(code) }
}

/// A string of a name, if it is text.
pub(super) fn text(string: &Asn1StringRef) -> Option<String> {
    string.as_utf8().ok().map(|text| text.to_string())
}

/// Bounds the bytes of certificates a client may send.
pub(super) fn set_max_chain_bytes(builder: &mut SslContextBuilder, bytes: usize) {
    // SAFETY: the pointer is that of a live builder we hold a unique reference to; the call only stores a number.
    unsafe { ffi::SSL_CTX_set_max_cert_list(builder.as_ptr(), bytes) };
}

/// One ticket a handshake, not two: whoever resumes gets the next one, and each costs time and, until the first answer is
/// sent, memory. Buffers between records are freed by this backend without being told.
pub(super) fn tune(builder: &mut SslContextBuilder) {
    // SAFETY: the pointer is that of a live builder we hold a unique reference to; the call only stores a number.
    unsafe { ffi::SSL_CTX_set_num_tickets(builder.as_ptr(), 1) };
}

/// Has the library free what only a handshake needs as soon as it is done. There is no second one: renegotiation is off.
pub(super) fn shed_handshake(ssl: &mut SslRef) {
    // SAFETY: a reference of the binding to a foreign object is that object's address, so the pointer is that of a live
    // connection we hold a unique reference to; the call only stores a flag.
    unsafe { ffi::SSL_set_shed_handshake_config(ptr::from_mut(ssl).cast(), 1) };
}

/// Lets the handshake pick the context whose certificate fits the client's SNI and signature algorithms.
pub(super) fn choose_certificate(builder: &mut SslContextBuilder, table: Arc<SniTable>) {
    builder.set_select_certificate_callback(move |mut hello| {
        let ecdsa = hello.get_extension(ExtensionType::SIGNATURE_ALGORITHMS).is_some_and(offers_ecdsa);
        let name = hello.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
        let Some(context) = table.find(name.as_deref(), ecdsa) else { return Ok(()) };
        hello.ssl_mut().set_ssl_context(context).map_err(|_| SelectCertError::ERROR)
    });
}

/// RFC 8446 §4.2.3: ecdsa_secp256r1_sha256 and its siblings. The extension is a vector of two-byte code points.
fn offers_ecdsa(extension: &[u8]) -> bool {
    let schemes = extension.get(2..).unwrap_or_default().as_chunks::<2>().0;
    schemes.iter().any(|scheme| matches!(scheme, [0x04..=0x06, 0x03]))
}

/// Seals and opens session tickets with our rotating keys.
pub(super) fn protect_tickets(builder: &mut SslContextBuilder, keys: Arc<TicketKeys>) {
    // SAFETY: the contract is to set key name, iv and both contexts when encrypting and both contexts when decrypting
    // successfully; `seal` and `open` do exactly that or report failure.
    unsafe {
        builder.set_ticket_key_callback(move |ssl, name, iv, cipher, hmac, encrypt| {
            let digest = MessageDigest::sha256();
            if encrypt {
                let Some(key) = sealing_key(ssl, &keys) else { return TicketKeyCallbackResult::Error };
                let sealed = super::random(iv)
                    .and_then(|()| cipher.init_encrypt(&Cipher::aes_256_cbc(), &key.aes, iv))
                    .and_then(|()| hmac.init(&key.hmac, &digest));
                *name = key.name;
                return if sealed.is_ok() { TicketKeyCallbackResult::Success } else { TicketKeyCallbackResult::Error };
            }
            let Some((key, renew)) = keys.opening_key(name) else { return TicketKeyCallbackResult::Noop };
            let opened =
                cipher.init_decrypt(&Cipher::aes_256_cbc(), &key.aes, iv).and_then(|()| hmac.init(&key.hmac, &digest));
            match (opened, renew) {
                (Err(_), _) => TicketKeyCallbackResult::Noop,
                (Ok(()), true) => TicketKeyCallbackResult::DecryptSuccessRenew,
                (Ok(()), false) => TicketKeyCallbackResult::Success,
            }
        });
    }
}

/// The current key, or one that is forgotten at once: a client whose path can't be judged again from its leaf gets a
/// ticket nobody can open, and falls back to a full handshake.
fn sealing_key(ssl: &SslRef, keys: &TicketKeys) -> Option<TicketKey> {
    let resumable = slot_index().and_then(|index| ssl.ex_data(index)).is_some_and(|slot| slot.resumable());
    if resumable || ssl.session_reused() { keys.sealing_key() } else { TicketKey::generate().ok() }
}

/// Nothing more to do than the option that the acceptor sets.
pub(super) fn disable_tickets(_builder: &mut SslContextBuilder) -> Result<(), super::lib::error::ErrorStack> {
    Ok(())
}

/// Adds an extension to a certificate that is being made.
pub(super) fn append_extension(
    builder: &mut super::lib::x509::X509Builder,
    extension: super::lib::x509::X509Extension,
) -> Result<(), super::lib::error::ErrorStack> {
    builder.append_extension(&extension)
}

/// Lets a path end at any certificate that is trusted, also at one that isn't self-signed.
pub(super) fn take_any_root(ssl: &mut SslRef) -> Result<(), super::lib::error::ErrorStack> {
    ssl.param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN);
    Ok(())
}

/// Has the notes of a client's handshake told when the server asks for a certificate.
pub(super) fn watch_certificate_request(builder: &mut SslContextBuilder) {
    // SAFETY: the pointer is that of a live builder; the callback has the documented signature, static lifetime, and no
    // use for its argument.
    unsafe { ffi::SSL_CTX_set_cert_cb(builder.as_ptr(), Some(certificate_requested), ptr::null_mut()) };
}

/// The callback of the library.
///
/// # Safety
///
/// Called by BoringSSL only: `ssl` is live and in the middle of its handshake.
unsafe extern "C" fn certificate_requested(ssl: *mut ffi::SSL, _argument: *mut c_void) -> c_int {
    // A panic must not unwind into C.
    let noted = std::panic::catch_unwind(|| {
        let index = notes_index()?;
        // SAFETY: the index was registered for this type, so what stands there is null or a pointer to a live value of
        // it that lives as long as the connection.
        let notes = unsafe { ffi::SSL_get_ex_data(ssl, index.as_raw()).cast::<Arc<super::probe::Notes>>().as_ref() }?;
        // SAFETY: `ssl` is live and in its handshake, so the list is null or lives for this call, and its entries are
        // buffers that are as long as they say.
        let names = unsafe {
            let list: *const ffi::OPENSSL_STACK = ffi::SSL_get0_server_requested_CAs(ssl).cast();
            let buffers = (0..ffi::OPENSSL_sk_num(list)).map(|at| ffi::OPENSSL_sk_value(list, at));
            let buffers = buffers.map(|buffer| buffer.cast::<ffi::CRYPTO_BUFFER>().cast_const());
            let bytes =
                |buffer| std::slice::from_raw_parts(ffi::CRYPTO_BUFFER_data(buffer), ffi::CRYPTO_BUFFER_len(buffer));
            buffers.filter(|buffer| !buffer.is_null()).map(|buffer| bytes(buffer).to_vec()).collect()
        };
        notes.asked(names);
        Some(())
    });
    // 1 lets the handshake go on, with the certificate of the context.
    c_int::from(noted.is_ok())
}
