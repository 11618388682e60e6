//! The fenced blocks of a guide, and what the comment above each says about running it.
//!
//! - `sh`, `console`: run in the order of the guide by the test that follows it, unless a comment says otherwise. Those of `sh`
//!   must succeed. In those of `console`, what follows `$ ` is run, and the other lines are in what it prints, in this order;
//!   `...` stands for anything, and how it ends doesn't matter.
//! - `<!-- not run: REASON -->`: no test can.
//! - `<!-- run by: MODULE::TEST -->`: another test does what it says.
//! - `<!-- needs: PROGRAM -->`: run where there is this program, which not every machine can have.
//! - `<!-- file: PATH -->`: a block of any language, which is what stands in that file from here on.
//! - `<!-- before: COMMANDS -->`: what has to happen before, in a test alone.

pub struct Block {
    pub language: String,
    pub text: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
    /// The comments directly above, outermost markers taken off.
    pub comments: Vec<String>,
}

impl Block {
    pub fn is_shell(&self) -> bool {
        matches!(self.language.as_str(), "sh" | "bash" | "shell" | "console")
    }

    pub fn not_run(&self) -> Option<&str> {
        self.comment("not run:")
    }

    pub fn run_by(&self) -> Option<&str> {
        self.comment("run by:")
    }

    pub fn before(&self) -> Option<&str> {
        self.comment("before:")
    }

    pub fn needs(&self) -> Option<&str> {
        self.comment("needs:")
    }

    pub fn file(&self) -> Option<&str> {
        self.comment("file:")
    }

    fn comment(&self, key: &str) -> Option<&str> {
        self.comments.iter().find_map(|comment| comment.strip_prefix(key)).map(str::trim)
    }
}

/// All fenced blocks of a Markdown text, also those of lists.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, row)) = lines.next() {
        let margin = row.len() - row.trim_start().len();
        let row = row.trim();
        if let Some(start) = row.strip_prefix("<!--") {
            let mut comment = start.to_owned();
            while !comment.trim_end().ends_with("-->") {
                let Some((_, more)) = lines.next() else { break };
                comment = format!("{comment}\n{more}");
            }
            comments.push(comment.trim_end().trim_end_matches("-->").trim().to_owned());
        } else if let Some(language) = row.strip_prefix("```") {
            let inside = lines.by_ref().map(|(_, row)| row).take_while(|row| row.trim() != "```");
            let text = inside.fold(String::new(), |text, row| text + row.get(margin..).unwrap_or_default() + "\n");
            let comments = std::mem::take(&mut comments);
            found.push(Block { language: language.to_owned(), text, line, comments });
        } else if !row.is_empty() {
            comments.clear();
        }
    }
    found
}
