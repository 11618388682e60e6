//! A page as it is written: markup is constant, text is escaped.

use std::fmt::{self, Display, Write as _};

use crate::telemetry::Escaped;

/// A page under way.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup, which is known when the gateway is built.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text of any origin.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a string doesn't fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// Text of any origin as an element of its own.
    pub(super) fn element(&mut self, name: &'static str, text: impl Display) -> &mut Self {
        self.raw("<").raw(name).raw(">").text(text).raw("</").raw(name).raw(">")
    }

    /// An attribute of the element that is open.
    pub(super) fn attribute(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// The classes of the element that is open.
    pub(super) fn class(&mut self, names: &[&'static str]) -> &mut Self {
        if names.iter().all(|name| name.is_empty()) {
            return self;
        }
        self.raw(" class=\"");
        for (position, name) in names.iter().filter(|name| !name.is_empty()).enumerate() {
            self.raw(if position == 0 { "" } else { " " }).raw(name);
        }
        self.raw("\"")
    }

    /// A cell of a table, with its heading for narrow screens.
    pub(super) fn cell(&mut self, heading: &'static str, content: impl FnOnce(&mut Self)) -> &mut Self {
        self.raw("<td").attribute("data-l", heading).raw("><div>");
        content(self);
        self.raw("</div></td>")
    }

    /// The beginning of a part of the page.
    pub(super) fn section(&mut self, id: &'static str, title: &'static str, note: impl Display) -> &mut Self {
        self.raw("<section").attribute("id", id).raw("><h2>").raw(title).raw(" ").element("small", note).raw("</h2>")
    }

    /// The beginning of a table.
    pub(super) fn table(&mut self, headings: &[&'static str]) -> &mut Self {
        self.raw("<table><thead><tr>");
        for heading in headings {
            self.element("th", heading);
        }
        self.raw("</tr></thead><tbody>")
    }

    /// The whole page.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Lets nothing through that a browser could take for markup, in text or in a quoted attribute, and nothing that orders the
/// text around it.
struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = String::with_capacity(text.len());
        for (position, line) in text.split('\n').enumerate() {
            plain.push_str(if position == 0 { "" } else { "\n" });
            write!(plain, "{}", Escaped(line))?;
        }
        for char in plain.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                char => self.0.push(char),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup_wherever_it_stands() {
        let mut html = Html::default();
        let hostile = "<script>alert(1)</script>\" onload='x' &amp; \u{202e}\u{1b}[2J\r";
        html.raw("<p").attribute("title", hostile).raw(">").text(hostile).raw("</p>");
        let page = html.finish();
        let expected =
            "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; &amp;amp; \\u{202e}\\u{1b}[2J\\r";
        assert_eq!(page, format!("<p title=\"{expected}\">{expected}</p>"));
    }

    #[test]
    fn a_report_keeps_its_lines() {
        let mut html = Html::default();
        html.text("a\nb<\n");
        assert_eq!(html.finish(), "a\nb&lt;\n");
    }
}
