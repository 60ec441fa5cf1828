//! Tables of text: columns as wide as their widest cell.

/// Rows under a head. Columns of numbers are aligned to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Vec::from(cells));
    }

    /// As text; `none` where there is no row.
    pub(crate) fn render(&self, none: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{none}\n");
        }
        let columns = self.rows[0].len();
        let width = |c: usize| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let is_number = |c: usize| self.rows[1..].iter().all(|r| r[c].parse::<u64>().is_ok());
        let shape: Vec<(usize, bool)> = (0..columns).map(|c| (width(c), is_number(c))).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&shape).map(|(cell, (width, number))| {
                if *number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
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
