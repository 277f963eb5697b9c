//! `start-up`: what a small fetch costs.

use serde_json::{Value, json};

use crate::Result;
use crate::lab::{Lab, write_noise};
use crate::report::{say, spread};

pub(crate) fn run(lab: &Lab, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, 1024)?;
    let seeder = lab.seed(&input)?;
    let mut millis = Vec::new();
    for number in 0..=runs {
        let (fetch, _) = lab.fetch(&seeder.link)?;
        // The first warms caches and is not counted.
        if number > 0 {
            millis.push(fetch.wall * 1e3);
        }
    }
    let figures = spread(&millis);
    say(&format!(
        "fetch of 1 KiB by link, process start to exit, {runs} runs: {figures} ms"
    ));
    let line = |millis: &f64| json!({ "bench": "start-up", "millis": millis });
    Ok(millis.iter().map(line).collect())
}
