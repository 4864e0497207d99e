//! Tables of results that may be long: as wide as their first rows need, printed as they come.

use std::io::{self, Write};

pub(super) use super::words::plain;

/// Rows that decide how wide the columns are.
const FIRST_ROWS: usize = 200;
/// The widest that a column gets; wider cells move the columns after them.
const WIDTH_MAX: usize = 48;

/// A table that is being printed.
#[derive(Debug)]
pub(super) struct Table {
    /// Columns with numbers, which stand to the right.
    numbers: Vec<usize>,
    /// Not printed yet; the header is the first of them.
    held: Vec<Vec<String>>,
    /// Once they are known.
    widths: Option<Vec<usize>>,
}

impl Table {
    pub(super) fn new(header: &[&str], numbers: &[usize]) -> Self {
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        Self { numbers: numbers.to_vec(), held: vec![header], widths: None }
    }

    /// Prints a row, now or later.
    pub(super) fn row(&mut self, out: &mut impl Write, row: Vec<String>) -> io::Result<()> {
        self.held.push(row.iter().map(|cell| plain(cell)).collect());
        if self.held.len() > FIRST_ROWS || self.widths.is_some() { self.print(out) } else { Ok(()) }
    }

    /// Prints the remaining rows. A table without rows has no header either.
    pub(super) fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.widths.is_none() && self.held.len() == 1 { Ok(()) } else { self.print(out) }
    }

    fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let columns = held.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| held.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let measured = || (0..columns).map(|column| width(column).unwrap_or(0).min(WIDTH_MAX)).collect();
        let widths: &Vec<usize> = self.widths.get_or_insert_with(measured);
        for row in held {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                line += &match self.numbers.contains(&column) {
                    true => format!("{cell:>width$}  "),
                    false => format!("{cell:width$}  "),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(rows: &[&[&str]]) -> String {
        let (mut out, mut table) = (Vec::new(), Table::new(&["NAME", "COUNT"], &[1]));
        for row in rows {
            table.row(&mut out, row.iter().map(|cell| (*cell).to_owned()).collect()).unwrap();
        }
        table.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_and_numbers_stand_to_the_right() {
        assert_eq!(printed(&[&["a", "1"], &["longer", "22"]]), "NAME    COUNT\na           1\nlonger     22\n");
        assert_eq!(printed(&[]), "");
    }

    #[test]
    fn a_cell_is_one_line_that_no_terminal_obeys() {
        assert_eq!(printed(&[&["a\nb\x1b[2J", "1"]]), "NAME           COUNT\na\\nb\\u{1b}[2J      1\n");
    }

    #[test]
    fn a_long_table_is_printed_whole() {
        let rows = vec![["x", "1"].as_slice(); 1_000];
        assert_eq!(printed(&rows).lines().count(), 1_001);
    }
}
