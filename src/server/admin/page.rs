//! `/`: the status page, one file that asks nobody but this node.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const HTML: &str = include_str!("page.html");

/// What a browser is told beside the page.
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    /// Allows the page's own script and nothing else: if a name ever gets into the page as markup, it does not run.
    pub(super) fn new() -> Self {
        let script = script(HTML).map_or("'none'".to_owned(), |script| {
            format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, script.as_bytes())))
        });
        let policy = format!(
            "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; \
             script-src {script}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // Letters, digits and signs of ASCII.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { policy }
    }

    /// The page itself.
    pub(super) fn show(&self) -> impl IntoResponse + use<> {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        ([(CONTENT_TYPE, html), (CONTENT_SECURITY_POLICY, self.policy.clone())], HTML)
    }
}

/// The text of the one script.
fn script(html: &str) -> Option<&str> {
    let (_, after) = html.split_once("<script>")?;
    Some(after.split_once("</script>")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_with_one_script() {
        assert_eq!(HTML.matches("<script").count(), 1);
        assert!(script(HTML).is_some());
        for elsewhere in ["http://", "https://", "@import", "url(", "innerHTML", "eval("] {
            let found = HTML.matches(elsewhere).count();
            let namespaces = HTML.matches("http://www.w3.org/2000/svg").count();
            let allowed = if elsewhere == "http://" { namespaces } else { 0 };
            assert_eq!(found, allowed, "{elsewhere}");
        }
    }
}
