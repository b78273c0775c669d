//! The report as one HTML page that needs no network. The data goes in as JSON; the page's script draws it and sets names
//! as text only, so that a hostile checkpoint's names are never markup.

use super::report::Report;

const PAGE: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
const LICENCES: &str = include_str!("assets/LICENSES.txt");
const LIBRARIES: &str = include_str!("assets/libraries.js");
const SCRIPTS: [&str; 4] = [
    include_str!("assets/base.js"),
    include_str!("assets/graph.js"),
    include_str!("assets/charts.js"),
    include_str!("assets/page.js"),
];

/// The page of a report.
///
/// # Errors
/// If a number in the report has no JSON form.
pub fn page(report: &Report) -> Result<String, serde_json::Error> {
    let data = inert(&serde_json::to_string(report)?);
    // Placeholders are looked for in the template alone, never in what was put in.
    let parts = [
        ("{{style}}", STYLE.to_owned()),
        ("{{licences}}", LICENCES.replace('<', "&lt;")),
        ("{{data}}", data),
        ("{{libraries}}", LIBRARIES.to_owned()),
        ("{{script}}", SCRIPTS.concat()),
    ];
    let mut page = String::new();
    let mut rest = PAGE;
    for (placeholder, content) in parts {
        let (before, after) = rest.split_once(placeholder).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(&content);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

/// JSON that can stand in a script element: what could end it, or a line of it, is written as an escape.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}
