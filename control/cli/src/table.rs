//! Tables of text: columns as wide as their widest cell.

use culvert_program::escaped;

/// Spaces between two columns.
const GAP: usize = 2;
/// A column is not cut to fewer characters.
const MIN_CUT: usize = 8;

/// Rows under a head. Columns of numbers are aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A name that ends the line would forge the next row.
        self.rows.push(Vec::from(cells.map(|cell| escaped(&cell).to_string())));
    }

    /// As text; `none` where there is no row.
    pub(crate) fn render(&self, none: &str) -> String {
        self.render_within(usize::MAX, &[], none)
    }

    /// The same in at most so many columns, if it suffices to cut the cells of some columns of the table, the longest first.
    pub(crate) fn render_within(&self, most: usize, cut: &[usize], none: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{none}\n");
        }
        let columns = self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..columns).map(width).collect();
        while widths.iter().sum::<usize>() + GAP * (columns - 1) > most
            && let Some(longest) =
                cut.iter().copied().max_by_key(|c| widths[*c]).filter(|c| widths[*c] > MIN_CUT)
        {
            widths[longest] -= 1;
        }
        let number = |cell: &str| {
            let digits = cell.trim_end_matches(['k', 'M', 'G', 'T', 'P', 'E']);
            let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
            let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
            cell == "-" || !whole.is_empty() && all_digits(whole) && all_digits(part)
        };
        let is_number = |c: usize| {
            self.rows[1..].iter().all(|r| number(&r[c])) && self.rows[1..].iter().any(|r| r[c] != "-")
        };
        let shape: Vec<(usize, bool)> = (0..columns).map(|c| (widths[c], is_number(c))).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&shape).map(|(cell, (width, number))| {
                let cell = shortened(cell, *width);
                if *number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// A text of at most `width` characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A cell that may be empty.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// A cell for a number that may be missing.
pub(crate) fn number_or_dash(number: Option<u16>) -> String {
    number.map_or_else(|| or_dash(""), |n| n.to_string())
}

/// The layers of a trace: for each, its name, vport, rule and action.
pub(crate) fn layers(rows: impl IntoIterator<Item = [String; 4]>) -> Table {
    let mut table = Table::new(["layer", "vport", "rule", "action"]);
    for [layer, vport, rule, action] in rows {
        table.row([layer, or_dash(&vport), or_dash(&rule), action]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_forges_no_row_and_moves_no_cursor() {
        let mut table = Table::new(["port", "state"]);
        table.row(["vm1\nvm2  up\u{1b}[2K".into(), "down".into()]);
        assert_eq!(table.render("none").lines().count(), 2);
        assert!(table.render("none").contains(r"vm1\nvm2  up\u001b[2K"));
    }

    #[test]
    fn numbers_stand_right_words_left() {
        let mut table = Table::new(["reason", "packets"]);
        table.row(["acl_deny".into(), "7".into()]);
        table.row(["ttl".into(), "1234567890".into()]);
        assert_eq!(
            table.render("none"),
            "reason       packets\nacl_deny           7\nttl       1234567890\n"
        );
        assert_eq!(Table::new(["a"]).render("no drops"), "no drops\n");
    }
}
