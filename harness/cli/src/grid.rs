//! Plain tables for a terminal: columns as wide as their widest cell.

/// Rows of cells under headings.
#[derive(Clone, Debug)]
pub struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Grid {
        Grid { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are only headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// The table as text, numbers to the right.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &[String], i: usize| row.get(i).cloned().unwrap_or_default();
        let widths: Vec<usize> =
            (0..columns).map(|i| self.rows.iter().map(|r| cell(r, i).chars().count()).max().unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..columns)
            .map(|i| {
                self.rows[1..].iter().all(|r| cell(r, i).chars().next().is_none_or(|c| c.is_ascii_digit() || c == '-'))
            })
            .collect();
        let mut out = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut line = String::new();
            for i in 0..columns {
                let text = cell(row, i);
                let pad = " ".repeat(widths[i] - text.chars().count());
                line.push_str(&if numeric[i] { format!("{pad}{text}") } else { format!("{text}{pad}") });
                line.push_str("  ");
            }
            out.push(line.trim_end().to_owned());
        }
        out.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_numbers_to_the_right() {
        let mut grid = Grid::new(&["name", "µs"]);
        grid.row(["a".into(), "1.0".into()]);
        grid.row(["longer".into(), "12.0".into()]);
        assert_eq!(grid.render(), "name      µs\na        1.0\nlonger  12.0");
    }
}
