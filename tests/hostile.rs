//! Real processes among peers that misbehave (`peers`), names that lie (`text`), and files that change while they are
//! served (`changing`).

mod changing;
mod peers;
mod text;

use shoal::content::{Link, ShareId};

fn share_of(link: &str) -> ShareId {
    link.parse::<Link>().unwrap().share
}
