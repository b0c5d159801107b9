//! Figures of a bench as a table (text and Markdown) and as a plot (SVG).

use std::fmt::Write;

use serde::Serialize;

/// What was measured once.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was done.
    pub workload: &'static str,
    /// In which unit.
    pub unit: &'static str,
    /// On which file system.
    pub target: &'static str,
    /// How much in a second.
    pub rate: f64,
}

/// Median and spread of several samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

/// A bench's result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What it is called.
    pub title: String,
    /// The machine and the versions, a line each.
    pub notes: Vec<String>,
    /// The file systems, the one to compare with first.
    pub targets: Vec<&'static str>,
    /// All that was measured.
    pub samples: Vec<Sample>,
}

fn unique<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

fn short(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.1}k", v / 1000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

impl Report {
    fn workloads(&self) -> Vec<(&'static str, &'static str)> {
        unique(self.samples.iter().map(|s| (s.workload, s.unit)))
    }

    /// The figure of a workload on a target, if it was measured.
    pub fn figure(&self, workload: &str, target: &str) -> Option<Figure> {
        let ours = self.samples.iter().filter(|s| s.workload == workload && s.target == target);
        let mut rates: Vec<f64> = ours.map(|s| s.rate).collect();
        rates.sort_by(f64::total_cmp);
        let (least, most) = (*rates.first()?, *rates.last()?);
        let middle = rates.len() / 2;
        let median = match rates.len() % 2 {
            0 => (rates[middle - 1] + rates[middle]) / 2.0,
            _ => rates[middle],
        };
        Some(Figure { median, least, most })
    }

    /// Rows of cells; the first row is the head.
    fn rows(&self) -> Vec<Vec<String>> {
        let Some(base) = self.targets.first() else { return Vec::new() };
        let mut head = vec!["workload".to_owned(), "unit".to_owned()];
        for target in &self.targets {
            head.push(format!("{target}: median (min-max)"));
            if target != base {
                head.push(format!("of {base}"));
            }
        }
        let mut rows = vec![head];
        for (workload, unit) in self.workloads() {
            let mut row = vec![workload.to_owned(), unit.to_owned()];
            let native = self.figure(workload, base);
            for target in &self.targets {
                let figure = self.figure(workload, target);
                let range = |f: Figure| format!("{} ({}-{})", short(f.median), short(f.least), short(f.most));
                row.push(figure.map_or_else(|| "-".to_owned(), range));
                if target != base {
                    let native = native.filter(|n| n.median > 0.0);
                    let ratio =
                        figure.zip(native).map(|(f, n)| format!("{:.0} %", 100.0 * f.median / n.median));
                    row.push(ratio.unwrap_or_else(|| "-".to_owned()));
                }
            }
            rows.push(row);
        }
        rows
    }

    /// As plain text.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = format!("{}\n\n", self.title);
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        let _ = write!(text, "\n{}\n", self.notes.join("\n"));
        text
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.title);
        for (number, row) in self.rows().iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        let notes: Vec<String> = self.notes.iter().map(|note| format!("- {note}")).collect();
        let _ = write!(text, "\n{}\n", notes.join("\n"));
        text
    }

    /// As a plot: for each workload a bar for each target, as a share of the first target's median; the
    /// thin line goes from the least to the most.
    pub fn svg(&self) -> String {
        const COLOURS: [&str; 4] = ["#5b6770", "#2f7ed8", "#d9822b", "#7a9a3a"];
        const LEFT: f64 = 210.0;
        const WIDTH: f64 = 560.0;
        const BAR: f64 = 15.0;
        const GAP: f64 = 16.0;
        let base = self.targets.first().copied().unwrap_or_default();
        let workloads = self.workloads();
        let shares = |workload: &str, target: &str| {
            let native = self.figure(workload, base)?.median;
            let f = self.figure(workload, target)?;
            Some((f, f.median / native, f.least / native, f.most / native))
        };
        let all = workloads.iter().flat_map(|(w, _)| self.targets.iter().filter_map(|t| shares(w, t)));
        let largest = all.map(|(_, _, _, most)| most).fold(1.0_f64, f64::max).min(3.0);
        let x = |share: f64| LEFT + WIDTH * share.min(largest) / largest;
        let group = BAR * self.targets.len() as f64 + GAP;
        let height = 90.0 + group * workloads.len() as f64;
        let full = LEFT + WIDTH + 190.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {full} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{full}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"12\" y=\"22\" font-size=\"15\">{}</text>\n",
            escape(&self.title)
        );
        for (number, target) in self.targets.iter().enumerate() {
            let at = LEFT + 190.0 * number as f64;
            let colour = COLOURS[number % COLOURS.len()];
            let _ = writeln!(
                svg,
                "<rect x=\"{at}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"46\">{}</text>",
                at + 17.0,
                escape(target)
            );
        }
        for percent in (0..=(largest * 100.0) as u32).step_by(if largest > 1.6 { 50 } else { 25 }) {
            let at = x(f64::from(percent) / 100.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"62\" x2=\"{at:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#666\">{percent} %</text>",
                height - 24.0,
                height - 9.0
            );
        }
        for (row, (workload, unit)) in workloads.iter().enumerate() {
            let top = 66.0 + group * row as f64;
            let middle = top + BAR * self.targets.len() as f64 / 2.0 + 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                escape(workload)
            );
            for (number, target) in self.targets.iter().enumerate() {
                let Some((figure, share, least, most)) = shares(workload, target) else { continue };
                let y = top + BAR * number as f64;
                let (bar, line) = (BAR - 3.0, y + BAR / 2.0 - 1.5);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{bar}\" fill=\"{}\"/>\
                     <line x1=\"{:.1}\" y1=\"{line:.1}\" x2=\"{:.1}\" y2=\"{line:.1}\" stroke=\"black\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{} {}</text>",
                    x(share) - LEFT,
                    COLOURS[number % COLOURS.len()],
                    x(least),
                    x(most),
                    x(share.max(most)) + 5.0,
                    y + BAR - 5.0,
                    short(figure.median),
                    escape(unit)
                );
            }
        }
        svg + "</svg>\n"
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let sample = |target, rate| Sample { workload: "a & b", unit: "files/s", target, rate };
        Report {
            title: "A title".to_owned(),
            notes: vec!["one note".to_owned()],
            targets: vec!["native", "other"],
            samples: vec![
                sample("native", 30.0),
                sample("native", 10.0),
                sample("native", 20.0),
                sample("other", 5.0),
                sample("other", 15.0),
            ],
        }
    }

    #[test]
    fn medians_and_shares() {
        let report = report();
        assert_eq!(report.figure("a & b", "native"), Some(Figure { median: 20.0, least: 10.0, most: 30.0 }));
        assert_eq!(report.figure("a & b", "absent"), None);
        let text = report.markdown();
        assert!(text.contains("| a & b | files/s | 20.0 (10.0-30.0) | 10.0 (5.0-15.0) | 50 % |"), "{text}");
        assert!(report.text().contains("one note"));
    }

    #[test]
    fn the_plot_has_a_bar_for_each_figure() {
        let svg = report().svg();
        assert_eq!(svg.matches("stroke=\"black\"").count(), 2);
        assert!(svg.contains("a &amp; b") && svg.ends_with("</svg>\n"));
    }
}
