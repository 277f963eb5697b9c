//! Times of files: those of the share for what was fetched, their own for what was there before.

use std::time::{Duration, SystemTime};

use super::*;

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn time_of(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn an_adopted_file_keeps_its_time_also_when_the_fetch_was_resumed() {
    for resumed in [false, true] {
        let scene = Scene::folder();
        fs::create_dir_all(scene.at("")).unwrap();
        fs::write(scene.at("big"), noise(BIG, 1)).unwrap();
        let file = fs::File::options().write(true).open(scene.at("big"));
        file.unwrap().set_modified(at(1_000_000)).unwrap();
        let (mut store, _) = scene.open(&scene.target()).unwrap();
        if resumed {
            drop(store);
            store = scene.resume().0;
        }
        let files = scene.share.manifest.geometry().file_count();
        store.set_modified(vec![2_000_000 * 1_000_000_000; files as usize]);
        scene.write_all(&store);
        store.finish().unwrap();
        assert_eq!(
            time_of(&scene.at("big")),
            at(1_000_000),
            "resumed: {resumed}"
        );
        assert_eq!(time_of(&scene.at("sub/small")), at(2_000_000));
        scene.check_result();
    }
}
