//! What is particular to OpenSSL.

#![expect(unsafe_code, reason = "what the safe binding lacks; each block says why it is sound")]

use std::ffi::{c_char, c_int, c_long, c_uchar, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use pingora::tls::ssl_sys as ffi;

use super::acceptor::SniTable;
use super::lib::asn1::Asn1StringRef;
use super::lib::ex_data::Index;
use super::lib::ssl::{NameType, SniError, SslContext, SslContextBuilder, SslMode, SslRef};
use super::lib::x509::verify::X509VerifyFlags;
use super::lib::x509::{X509StoreContextRef, X509VerifyResult};
use super::probe::notes_index;
use super::tickets::{TicketKey, TicketKeys};
use super::verify::{Slot, slot_index};

pub(super) const NAME: &str = "openssl";

/// OpenSSL keeps one certificate for each kind of key in a context and picks by the client's signature algorithms.
pub(super) const MIXED_KEYS_IN_ONE_CONTEXT: bool = true;

/// X509_V_ERR_INVALID_CA: an issuer on the path is no CA. OpenSSL 3 has given its old number to something else.
pub(super) const INVALID_CA: i32 = 79;

/// The outcome the library put into `context`: its X509_V_ERR code and text.
pub(super) fn verify_outcome(context: &X509StoreContextRef) -> (i32, String) {
    let result = context.error();
    (result.as_raw(), result.error_string().to_owned())
}

/// The verify result for one of the library's own X509_V_ERR codes.
pub(super) fn verify_error(code: i32) -> X509VerifyResult {
    // SAFETY: `from_raw` asks for a code the library knows; the callers pass constants of x509_vfy.h or codes that the
    // library itself reported.
    unsafe { X509VerifyResult::from_raw(code) }
}

/// A string of a name, if it is text.
pub(super) fn text(string: &Asn1StringRef) -> Option<String> {
    string.to_string().ok()
}

/// Bounds the bytes of certificates a client may send.
pub(super) fn set_max_chain_bytes(builder: &mut SslContextBuilder, bytes: usize) {
    const SSL_CTRL_SET_MAX_CERT_LIST: c_int = 51;
    let bytes = c_long::try_from(bytes).unwrap_or(c_long::MAX);
    // SAFETY: the pointer is that of a live builder we hold a unique reference to; this control stores a number.
    unsafe { ffi::SSL_CTX_ctrl(builder.as_ptr(), SSL_CTRL_SET_MAX_CERT_LIST, bytes, ptr::null_mut()) };
}

/// Gives the 34 KiB of record buffers back while a connection is idle, and reads whole records with one call.
pub(super) fn tune(builder: &mut SslContextBuilder) {
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    builder.set_read_ahead(true);
    // One ticket a handshake, not two: whoever resumes gets the next one, and each costs time and memory. It fails for
    // numbers that are far too large only.
    let _ = builder.set_num_tickets(1);
}

/// Nothing: this library frees what a handshake needs by itself.
pub(super) fn shed_handshake(_ssl: &mut SslRef) {}

/// Lets the handshake pick the context whose certificates fit the client's SNI.
pub(super) fn choose_certificate(builder: &mut SslContextBuilder, table: Arc<SniTable>) {
    builder.set_servername_callback(move |ssl, _alert| {
        let name = ssl.servername(NameType::HOST_NAME).map(str::to_ascii_lowercase);
        let Some(context) = table.find(name.as_deref(), true) else { return Ok(()) };
        ssl.set_ssl_context(context).map_err(|_| SniError::ALERT_FATAL)
    });
}

type TicketKeyCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ffi::EVP_CIPHER_CTX,
    *mut ffi::EVP_MAC_CTX,
    c_int,
) -> c_int;

// The binding crate lacks these two functions of OpenSSL 3.
unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx: *mut ffi::SSL_CTX, callback: Option<TicketKeyCallback>) -> c_int;
    fn OSSL_PARAM_construct_utf8_string(key: *const c_char, buffer: *mut c_char, size: usize) -> ffi::OSSL_PARAM;
}

/// Return values of the ticket key callback, SSL_CTX_set_tlsext_ticket_key_evp_cb(3).
mod verdict {
    use std::ffi::c_int;

    pub(super) const FAILED: c_int = -1;
    pub(super) const NO_TICKET: c_int = 0;
    pub(super) const DONE: c_int = 1;
    pub(super) const RENEW: c_int = 2;
}

const KEY_NAME_LENGTH: usize = 16;
const IV_LENGTH: usize = 16;

fn keys_index() -> Option<Index<SslContext, Arc<TicketKeys>>> {
    static INDEX: OnceLock<Option<Index<SslContext, Arc<TicketKeys>>>> = OnceLock::new();
    *INDEX.get_or_init(|| SslContext::new_ex_index().ok())
}

/// Seals and opens session tickets with our rotating keys.
pub(super) fn protect_tickets(builder: &mut SslContextBuilder, keys: Arc<TicketKeys>) {
    let Some(index) = keys_index() else { return };
    builder.set_ex_data(index, keys);
    // SAFETY: the pointer is that of a live builder; the callback has the documented signature and static lifetime.
    unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(builder.as_ptr(), Some(ticket_key)) };
}

/// The callback of the library. It finds the keys in the context, and what the handshake learned in the connection.
///
/// # Safety
///
/// Called by OpenSSL only: `ssl`, `cipher` and `mac` are live, `name` and `iv` point to 16 bytes each.
unsafe extern "C" fn ticket_key(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    encrypt: c_int,
) -> c_int {
    // A panic must not unwind into C.
    std::panic::catch_unwind(|| {
        let (Some(keys_at), Some(slot_at)) = (keys_index(), slot_index()) else { return verdict::FAILED };
        // SAFETY: both indices were registered for these types, so what stands there is null or a pointer to a live
        // value of the type that lives as long as its context or connection.
        let (keys, slot) = unsafe {
            let context = ffi::SSL_get_SSL_CTX(ssl);
            let keys = ffi::SSL_CTX_get_ex_data(context, keys_at.as_raw()).cast::<Arc<TicketKeys>>().as_ref();
            let slot = ffi::SSL_get_ex_data(ssl, slot_at.as_raw()).cast::<Arc<Slot>>().as_ref();
            (keys, slot)
        };
        let Some(keys) = keys else { return verdict::FAILED };
        if encrypt == 1 {
            // SAFETY: guaranteed by the contract of this function.
            unsafe { seal(ssl, slot, keys, name, iv, cipher, mac) }
        } else {
            // SAFETY: guaranteed by the contract of this function.
            unsafe { open(keys, name, iv, cipher, mac) }
        }
    })
    .unwrap_or(verdict::FAILED)
}

/// # Safety
///
/// As [`ticket_key`].
#[expect(clippy::too_many_arguments, reason = "the arguments of OpenSSL's callback, and what they lead to")]
unsafe fn seal(
    ssl: *mut ffi::SSL,
    slot: Option<&Arc<Slot>>,
    keys: &TicketKeys,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
) -> c_int {
    // SAFETY: `ssl` is live.
    let resumed = unsafe { ffi::SSL_session_reused(ssl) } == 1;
    // A client whose path can't be judged again from its leaf gets a ticket nobody can open, and falls back to a full
    // handshake.
    let key = if resumed || slot.is_some_and(|slot| slot.resumable()) {
        keys.sealing_key()
    } else {
        TicketKey::generate().ok()
    };
    let mut fresh = [0; IV_LENGTH];
    let (Some(key), Ok(())) = (key, super::random(&mut fresh)) else { return verdict::FAILED };
    // SAFETY: `name` and `iv` have 16 bytes each, `cipher` is live, the key has the 32 bytes that AES-256 reads.
    let ready = unsafe {
        ptr::copy_nonoverlapping(key.name.as_ptr(), name, KEY_NAME_LENGTH);
        ptr::copy_nonoverlapping(fresh.as_ptr(), iv, IV_LENGTH);
        ffi::EVP_EncryptInit_ex(cipher, ffi::EVP_aes_256_cbc(), ptr::null_mut(), key.aes.as_ptr(), iv) == 1
            && init_mac(mac, &key)
    };
    if ready { verdict::DONE } else { verdict::FAILED }
}

/// # Safety
///
/// As [`ticket_key`].
unsafe fn open(
    keys: &TicketKeys,
    name: *const c_uchar,
    iv: *const c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
) -> c_int {
    // SAFETY: `name` points to 16 bytes.
    let name = unsafe { std::slice::from_raw_parts(name, KEY_NAME_LENGTH) };
    let Some((key, renew)) = keys.opening_key(name) else { return verdict::NO_TICKET };
    // SAFETY: `iv` has the 16 bytes that CBC reads, `cipher` is live, the key has the 32 bytes that AES-256 reads.
    let ready = unsafe {
        ffi::EVP_DecryptInit_ex(cipher, ffi::EVP_aes_256_cbc(), ptr::null_mut(), key.aes.as_ptr(), iv) == 1
            && init_mac(mac, &key)
    };
    match (ready, renew) {
        (false, _) => verdict::NO_TICKET,
        (true, true) => verdict::RENEW,
        (true, false) => verdict::DONE,
    }
}

/// # Safety
///
/// `mac` is a live HMAC context.
unsafe fn init_mac(mac: *mut ffi::EVP_MAC_CTX, key: &TicketKey) -> bool {
    let mut digest = *b"SHA256\0";
    // SAFETY: the parameters and what they point to outlive the call; a length of 0 means a zero-terminated string.
    unsafe {
        let parameters = [
            OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), digest.as_mut_ptr().cast(), 0),
            ffi::OSSL_PARAM_construct_end(),
        ];
        ffi::EVP_MAC_init(mac, key.hmac.as_ptr(), key.hmac.len(), parameters.as_ptr()) == 1
    }
}

/// TLS 1.3 sends stateful tickets when stateless ones are off; there must be none at all.
pub(super) fn disable_tickets(builder: &mut SslContextBuilder) -> Result<(), super::lib::error::ErrorStack> {
    builder.set_num_tickets(0)
}

/// Adds an extension to a certificate that is being made.
pub(super) fn append_extension(
    builder: &mut super::lib::x509::X509Builder,
    extension: super::lib::x509::X509Extension,
) -> Result<(), super::lib::error::ErrorStack> {
    builder.append_extension(extension)
}

type CertificateCallback = unsafe extern "C" fn(*mut ffi::SSL, *mut c_void) -> c_int;

// The binding crate lacks these two.
unsafe extern "C" {
    fn SSL_CTX_set_cert_cb(ctx: *mut ffi::SSL_CTX, callback: Option<CertificateCallback>, argument: *mut c_void);
    fn SSL_get_client_CA_list(ssl: *const ffi::SSL) -> *mut ffi::OPENSSL_STACK;
}

/// Lets a path end at any certificate that is trusted, also at one that isn't self-signed.
pub(super) fn take_any_root(ssl: &mut SslRef) -> Result<(), super::lib::error::ErrorStack> {
    ssl.param_mut().set_flags(X509VerifyFlags::PARTIAL_CHAIN)
}

/// Has the notes of a client's handshake told when the server asks for a certificate.
pub(super) fn watch_certificate_request(builder: &mut SslContextBuilder) {
    // SAFETY: the pointer is that of a live builder; the callback has the documented signature, static lifetime, and no
    // use for its argument.
    unsafe { SSL_CTX_set_cert_cb(builder.as_ptr(), Some(certificate_requested), ptr::null_mut()) };
}

/// The callback of the library.
///
/// # Safety
///
/// Called by OpenSSL only: `ssl` is live and in the middle of its handshake.
unsafe extern "C" fn certificate_requested(ssl: *mut ffi::SSL, _argument: *mut c_void) -> c_int {
    // A panic must not unwind into C.
    let noted = std::panic::catch_unwind(|| {
        let index = notes_index()?;
        // SAFETY: the index was registered for this type, so what stands there is null or a pointer to a live value of
        // it that lives as long as the connection.
        let notes = unsafe { ffi::SSL_get_ex_data(ssl, index.as_raw()).cast::<Arc<super::probe::Notes>>().as_ref() }?;
        // SAFETY: `ssl` is live, so the list is null, for which there are -1 entries, or lives for this call; its entries
        // are names.
        let names = unsafe {
            let list = SSL_get_client_CA_list(ssl);
            let names = (0..ffi::OPENSSL_sk_num(list)).map(|at| ffi::OPENSSL_sk_value(list, at));
            names.filter(|name| !name.is_null()).filter_map(|name| name_der(name.cast())).collect()
        };
        notes.asked(names);
        Some(())
    });
    // 1 lets the handshake go on, with the certificate of the context.
    c_int::from(noted.is_ok())
}

/// # Safety
///
/// `name` is live.
unsafe fn name_der(name: *mut ffi::X509_NAME) -> Option<Vec<u8>> {
    // SAFETY: `name` is live; without a buffer the call only gives the length.
    let length = usize::try_from(unsafe { ffi::i2d_X509_NAME(name, ptr::null_mut()) }).ok()?;
    let mut der = vec![0_u8; length];
    let mut end = der.as_mut_ptr();
    // SAFETY: the buffer is as long as the library said that it must be; `end` is moved, and the buffer is not.
    let written = unsafe { ffi::i2d_X509_NAME(name, &raw mut end) };
    (usize::try_from(written).ok() == Some(length)).then_some(der)
}
