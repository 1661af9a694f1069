//! Which machine hears which. Place `machines` is where the clients are.

/// Cuts in force, by direction. Faults overlap, so they are counted.
#[derive(Debug)]
pub(crate) struct Links {
    places: usize,
    cuts: Vec<u32>,
    /// Until when a link is clogged.
    clogged: Vec<u64>,
}

impl Links {
    pub(crate) fn new(machines: usize) -> Links {
        let places = machines + 1;
        Links { places, cuts: vec![0; places * places], clogged: vec![0; places * places] }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.places + to
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[self.at(from, to)] > 0
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.cuts[at] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.cuts[at] -= 1;
    }

    pub(crate) fn clog(&mut self, from: usize, to: usize, until: u64) {
        let at = self.at(from, to);
        self.clogged[at] = self.clogged[at].max(until);
    }

    pub(crate) fn clogged_until(&self, from: usize, to: usize) -> u64 {
        self.clogged[self.at(from, to)]
    }
}
