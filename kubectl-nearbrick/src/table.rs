//! Values as columns of text, and colours where a person reads them.

use std::io::IsTerminal;

/// What a cell says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// To be noticed.
    Notice,
    /// Something is wrong.
    Bad,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// Where stdout is a terminal, and `NO_COLOR` is not set (<https://no-color.org>).
    pub fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(std::io::stdout().is_terminal() && !unwanted)
    }

    /// The text in the colour of its tone.
    pub fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Notice => "33",
            Tone::Bad => "31",
            Tone::Plain => return text.to_owned(),
        };
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// With a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        // What comes from objects must not move the cursor.
        let text: String = text.into().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Cell { text, tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

/// Rows below a heading, each column as wide as it must be.
pub fn table(heading: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.text.chars().count());
        cells.chain([heading.get(n).map_or(0, |h| h.len())]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &[(&str, Tone)]| {
        let mut text = String::new();
        for (n, (cell, tone)) in cells.iter().enumerate() {
            text.push_str(&paint.paint(cell, *tone));
            if n + 1 < cells.len() {
                let pad = widths.get(n).map_or(0, |w| w.saturating_sub(cell.chars().count())) + 3;
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&heading.iter().map(|h| (*h, Tone::Plain)).collect::<Vec<_>>());
    for row in rows {
        line(&row.iter().map(|cell| (cell.text.as_str(), cell.tone)).collect::<Vec<_>>());
    }
    out
}

/// How long ago something was, as kubectl says it.
pub fn age(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..120 => format!("{s}s"),
        120..7200 => format!("{}m", s / 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_nothing_trails() {
        let rows = [vec![Cell::from("a"), Cell::new("ok", Tone::Good)], vec!["longer".into(), "x\ny".into()]];
        let plain = table(&["NAME", "STATE"], &rows, Paint(false));
        assert_eq!(plain, "NAME     STATE\na        ok\nlonger   x y\n");
        let colours = table(&["NAME", "STATE"], &rows, Paint(true));
        assert!(colours.contains("\u{1b}[32mok\u{1b}[0m"), "{colours:?}");
        assert_eq!(table(&["NAME"], &[], Paint(false)), "NAME\n");
    }

    #[test]
    fn ages() {
        assert_eq!(
            [-5, 0, 119, 120, 7199, 7200, 172_800].map(age),
            ["0s", "0s", "119s", "2m", "119m", "2h", "2d"]
        );
    }
}
