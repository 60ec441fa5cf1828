//! Splits a file into words.

/// A run of letters, digits and underscores.
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    /// Counted from one.
    pub(super) line: usize,
    /// Whether it is code: outside of comments in a Rust file, or between back-quotes in any file.
    pub(super) is_code: bool,
    /// Whether nothing but space and the marks of a comment lies between it and the word before.
    pub(super) follows_space: bool,
}

/// The words of a text; `rust`: its lines are code up to `//`.
pub(super) fn words(text: &str, rust: bool) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut line_is_new = false;
    let mut gap = String::new();
    for (number, line) in text.lines().enumerate() {
        let comment = if rust { comment(line) } else { 0 };
        let mut quoted = false;
        let mut start = None;
        for (at, c) in line.char_indices().chain([(line.len(), '\n')]) {
            if c.is_alphanumeric() || c == '_' {
                start.get_or_insert(at);
                continue;
            }
            if let Some(from) = start.take() {
                let marks = |c: char| c.is_whitespace() || (line_is_new && "/!#*>|".contains(c));
                words.push(Word {
                    text: &line[from..at],
                    line: number + 1,
                    is_code: if rust && from < comment { true } else { quoted },
                    follows_space: !gap.is_empty() && gap.chars().all(marks),
                });
                gap.clear();
                line_is_new = false;
            }
            gap.push(c);
            quoted ^= c == '`' && at >= comment;
        }
        line_is_new = true;
    }
    words
}

/// Where a line's comment begins, or its length. A `//` after a colon is a URL's.
fn comment(line: &str) -> usize {
    line.match_indices("//").map(|(at, _)| at).find(|&at| !line[..at].ends_with(':')).unwrap_or(line.len())
}
