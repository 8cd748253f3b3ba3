//! Text in columns.
//!
//! Pure. Columns are as wide as their widest cell; the last is not padded, so lines have no blanks at their ends.

/// A table under construction.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    sides: Vec<Side>,
}

/// At which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Table {
    /// Starts a table with a heading per column; numbers belong at the right.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
            sides: columns.iter().map(|(_, side)| *side).collect(),
        }
    }

    /// Adds a row; empty cells become a dash.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// Returns the lines.
    pub fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let padding = " ".repeat(width - cell.chars().count());
                match side {
                    Side::Left => line.extend([cell.as_str(), &padding]),
                    Side::Right => line.extend([padding.as_str(), cell]),
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Says a length of time for people: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

/// Says an amount of bytes for people: `512 B`, `38.5 MB`.
pub fn bytes(count: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", count / unit, count % unit / (unit / 10)),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_in_words() {
        let mut table = Table::new(&[("NAME", Side::Left), ("JOBS", Side::Right), ("NOTE", Side::Left)]);
        table.row(["n1".into(), "7".into(), String::new()]);
        table.row(["a longer name".into(), "12345".into(), "ä".into()]);
        assert_eq!(
            table.render(),
            "NAME            JOBS  NOTE\nn1                 7  -\na longer name  12345  ä\n"
        );
    }

    #[test]
    fn amounts_have_units() {
        let spans: Vec<String> = [7, 1_500, 150_000, 7_200_000, 999_999_999].map(span).to_vec();
        assert_eq!(spans, ["7 ms", "1 s", "2 min", "2 h", "11 d"]);
        let sizes: Vec<String> = [9, 1_999, 38_540_000, 3_000_000_000].map(bytes).to_vec();
        assert_eq!(sizes, ["9 B", "1.9 kB", "38.5 MB", "3.0 GB"]);
    }
}
