//! An answer as a test client saw it, over either version of HTTP.

use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// In the order received; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e} in the answer {}: {}", self.status, self.text()))
    }

    /// The code of the first OCI error, or `""`.
    pub fn code(&self) -> String {
        self.error_field("code")
    }

    /// The message of the first OCI error, or `""`.
    pub fn message(&self) -> String {
        self.error_field("message")
    }

    fn error_field(&self, field: &str) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["errors"][0][field].as_str().unwrap_or_default().to_owned()
    }

    /// Checks everything that makes a refusal one that registry clients understand.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
        assert!(self.header("content-type").is_some_and(|t| t.starts_with("application/json")), "{self:?}");
        assert_eq!(self.header("docker-distribution-api-version"), Some("registry/2.0"), "{self:?}");
        assert!(!self.message().is_empty(), "{self:?}");
    }
}
