//! Plain tables for a terminal. One that is wider than the terminal wraps its widest columns; what is piped has a line a row.

use console::Term;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::peaker::Priority;
use tabled::settings::{Alignment, Padding, Style, Width};

/// Characters that a column has at least, on average, where a table is wrapped.
const LEAST: usize = 12;

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

    /// The table as text for stdout, numbers to the right.
    pub fn render(&self) -> String {
        let terminal = Term::stdout();
        let columns = terminal.is_term().then(|| terminal.size_checked()).flatten().map(|(_, columns)| columns);
        self.within(columns.map(usize::from))
    }

    /// In lines of at most so many columns, where that is possible.
    fn within(&self, most: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let is_number = |text: &String| text.chars().next().is_none_or(|c| c.is_ascii_digit() || c == '-');
        let mut table = Builder::from_iter(&self.rows).build();
        table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
        for i in 0..columns {
            if self.rows[1..].iter().filter_map(|row| row.get(i)).all(is_number) {
                table.modify(Columns::one(i), Alignment::right());
            }
        }
        // Many columns in few characters would be columns of syllables: these lines are left to the terminal.
        if let Some(most) = most.filter(|most| most / columns.max(1) >= LEAST) {
            // The space behind the last column is cut off below.
            table.with(Width::wrap(most + 2).keep_words(true).priority(Priority::max(true)));
        }
        table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[[&str; 2]]) -> Grid {
        let mut grid = Grid::new(&["name", "µs"]);
        rows.iter().for_each(|row| grid.row(row.map(str::to_owned)));
        grid
    }

    #[test]
    fn columns_line_up_with_numbers_to_the_right() {
        let grid = of(&[["a", "1.0"], ["longer", "12.0"]]);
        assert_eq!(grid.within(None), "name      µs\na        1.0\nlonger  12.0");
        assert_eq!(grid.within(Some(80)), grid.within(None));
    }

    #[test]
    fn a_table_of_many_columns_for_few_characters_is_not_wrapped() {
        let grid = of(&[["one two three four five six", "1.0"]]);
        assert_eq!(grid.within(Some(23)), grid.within(None));
    }

    #[test]
    fn a_table_that_is_wider_than_the_terminal_wraps_its_widest_column() {
        let grid = of(&[["one two three four five six", "1.0"], ["b", "12.0"]]);
        let text = grid.within(Some(24));
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        words.sort_unstable();
        assert_eq!(words, ["1.0", "12.0", "b", "five", "four", "name", "one", "six", "three", "two", "µs"]);
    }
}
