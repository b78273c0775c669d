//! Bars of every metric in one picture, which follows the reader's light or dark theme.

use super::{Better, METRICS, Results, median, shown};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

const WIDTH: i32 = 900;
const COLUMNS: i32 = 2;
const BAR: i32 = 18;
const TITLE: i32 = 44;
const HEADING: i32 = 26;
/// Where bars begin in a panel, and how far they reach.
const NAMES: i32 = 150;
const VALUES: i32 = 60;

/// This project, then its peers: legible on white and on black.
const COLORS: [RGBColor; 5] = [
    RGBColor(0x2f, 0x81, 0xf7),
    RGBColor(0xd2, 0x8b, 0x26),
    RGBColor(0xa3, 0x71, 0xf7),
    RGBColor(0x3f, 0xb9, 0x50),
    RGBColor(0xf7, 0x78, 0xba),
];

/// Text takes its color from the theme.
const THEME: &str = "<style>text{fill:#1f2328}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}</style>";

/// An SVG document.
pub fn svg(title: &str, results: &Results) -> Result<String, Box<dyn Error>> {
    let panel = HEADING + BAR * results.len() as i32 + 16;
    let rows = (METRICS.len() as i32 + COLUMNS - 1) / COLUMNS;
    let mut text = String::new();
    {
        let area =
            SVGBackend::with_string(&mut text, (WIDTH as u32, (TITLE + rows * panel) as u32)).into_drawing_area();
        area.draw(&Text::new(title.to_owned(), (8, 12), ("sans-serif", 17).into_font()))?;
        for (index, (metric, unit, better)) in METRICS.iter().enumerate() {
            let index = index as i32;
            let left = index % COLUMNS * WIDTH / COLUMNS + 8;
            let top = TITLE + index / COLUMNS * panel;
            let direction = match better {
                Better::More => "more is better",
                Better::Less => "less is better",
            };
            let heading = format!("{metric} ({unit}, {direction})");
            area.draw(&Text::new(heading, (left, top), ("sans-serif", 14).into_font()))?;
            let values: Vec<Option<f64>> =
                results.iter().map(|(_, values)| values.get(*metric).and_then(|values| median(values))).collect();
            let most = values.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
            for (number, ((engine, _), value)) in results.iter().zip(&values).enumerate() {
                let y = top + HEADING + number as i32 * BAR;
                let room = WIDTH / COLUMNS - NAMES - VALUES - 16;
                let length = value.map_or(0, |value| (f64::from(room) * value / most).round() as i32);
                let (start, end) = (left + NAMES, left + NAMES + length);
                let style = ("sans-serif", 12).into_font().into_text_style(&area);
                let right = style.pos(Pos::new(HPos::Right, VPos::Top));
                area.draw(&Text::new(engine.clone(), (start - 6, y), right))?;
                let color = COLORS[number % COLORS.len()].filled();
                area.draw(&Rectangle::new([(start, y), (end, y + BAR - 5)], color))?;
                let label = value.map_or("-".to_owned(), shown);
                area.draw(&Text::new(label, (end + 5, y), ("sans-serif", 12).into_font()))?;
            }
        }
        area.present()?;
    }
    let head = text.find('>').map_or(0, |end| end + 1);
    text.insert_str(head, THEME);
    Ok(text + "\n")
}
