//! Text of others without the characters that move a cursor, end a line or turn text around.

use std::fmt::{self, Write as _};

/// Shows each character that is not to be printed as an escape sequence, such as `\n` or `\u001b`; see [`escaped`].
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    text: &'a str,
    keep_lines: bool,
}

/// Text of one line.
pub fn escaped(text: &str) -> Escaped<'_> {
    Escaped { text, keep_lines: false }
}

/// Text of several lines: their ends and tabs stay. JSON keeps its meaning.
pub fn escaped_lines(text: &str) -> Escaped<'_> {
    Escaped { text, keep_lines: true }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars() {
            match c {
                '\n' | '\t' if self.keep_lines => f.write_char(c)?,
                '\n' | '\t' | '\r' => write!(f, "{}", c.escape_default())?,
                // As in JSON; none of them lies beyond four digits.
                _ if is_hidden(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a character is one of control, ends a line, or changes the direction of the text behind it (Unicode TR 36, 2.10).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_ends_a_line_is_shown_as_an_escape() {
        let name = "vm1\n2026 ERROR\r\u{1b}[2J\u{9b}1A\u{7f}\0\u{202e}txt\u{2028}";
        let shown = r"vm1\n2026 ERROR\r\u001b[2J\u009b1A\u007f\u0000\u202etxt\u2028";
        assert_eq!(escaped(name).to_string(), shown);
        assert_eq!(escaped_lines("a\n\tb\u{1b}").to_string(), "a\n\tb\\u001b");
        assert_eq!(escaped("Kundennetz Köln 東京 \"x\"").to_string(), "Kundennetz Köln 東京 \"x\"");
    }
}
