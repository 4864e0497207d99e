//! The journal's bytes, built and taken apart by the documented layout alone.

use std::collections::BTreeMap;

pub(crate) const FILE_HEAD: usize = 32;
pub(crate) const HEAD: usize = 56;

pub(crate) const UNIT: u8 = 1;
pub(crate) const MARK: u8 = 2;

/// A frame; what is not said is right for its place.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) position: u64,
    pub(crate) durable: u64,
    pub(crate) time: u64,
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) previous: u32,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = b"WTTL".to_vec();
        bytes.extend([self.version, self.kind, 0, 0]);
        bytes.extend((self.body.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        for number in [self.position, self.durable, self.time, self.sequence] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.previous.to_le_bytes());
        bytes.extend(&self.body);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// The body of a unit of one slice, with the lane's position where there is one.
pub(crate) fn unit(lane: Option<(u32, u32, u64)>, slices: &[((u32, u32), u64, &[&str])]) -> Vec<u8> {
    let mut body = (slices.len() as u32).to_le_bytes().to_vec();
    body.extend(u32::from(lane.is_some()).to_le_bytes());
    if let Some((subscriber, partition, consumed_to)) = lane {
        body.extend(subscriber.to_le_bytes());
        body.extend(partition.to_le_bytes());
        body.extend(consumed_to.to_le_bytes());
    }
    for ((topic, partition), base_offset, records) in slices {
        let framed: Vec<u8> = records
            .iter()
            .flat_map(|record| [&(record.len() as u32).to_le_bytes()[..], record.as_bytes()].concat())
            .collect();
        body.extend(topic.to_le_bytes());
        body.extend(partition.to_le_bytes());
        body.extend(base_offset.to_le_bytes());
        body.extend((records.len() as u32).to_le_bytes());
        body.extend((framed.len() as u32).to_le_bytes());
        body.extend(framed);
    }
    body
}

pub(crate) fn name(first_position: u64) -> String {
    format!("journal-{first_position:016x}")
}

pub(crate) fn file_head(first_position: u64) -> Vec<u8> {
    let mut head = b"WATTLEJ1".to_vec();
    head.extend(first_position.to_le_bytes());
    head.extend(crc32c::crc32c(&head).to_le_bytes());
    head.resize(FILE_HEAD, 0);
    head
}

/// Writes a journal frame by frame, as a log would.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    file: String,
    pub(crate) next: Frame,
    /// Position of each frame so far.
    pub(crate) positions: Vec<u64>,
}

impl Writer {
    /// A journal that was opened once: a file with the mark of epoch 1.
    pub(crate) fn new() -> Self {
        Self::counting_from(1)
    }

    /// The same, whose first frame has this sequence.
    pub(crate) fn counting_from(sequence: u64) -> Self {
        let next = Frame {
            version: 1,
            kind: MARK,
            position: 0,
            durable: 0,
            time: 0,
            sequence,
            epoch: 1,
            previous: 0,
            body: Vec::new(),
        };
        let files = BTreeMap::from([(name(0), file_head(0))]);
        let mut writer = Self { files, file: name(0), next, positions: Vec::new() };
        writer.mark();
        writer
    }

    /// The next frame, with this kind and body, not yet written.
    pub(crate) fn frame(&self, kind: u8, body: Vec<u8>) -> Frame {
        Frame { kind, body, ..self.next.clone() }
    }

    /// Writes a frame at its place in the chain.
    pub(crate) fn push(&mut self, frame: &Frame) {
        let bytes = frame.encode();
        self.positions.push(self.next.position);
        self.next.previous = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
        self.next.position += bytes.len() as u64;
        self.next.sequence += 1;
        self.files.get_mut(&self.file).unwrap().extend(bytes);
    }

    /// One event as one frame.
    pub(crate) fn event(&mut self, base_offset: u64, text: &str) {
        self.push(&self.frame(UNIT, unit(None, &[((1, 0), base_offset, &[text])])));
    }

    /// Says that everything so far is durable, as a log does with each frame after a sync.
    pub(crate) fn synced(&mut self) {
        self.next.durable = self.next.position;
    }

    pub(crate) fn mark(&mut self) {
        self.synced();
        self.push(&self.frame(MARK, Vec::new()));
    }

    /// Begins the next file, after a sync.
    pub(crate) fn roll(&mut self) {
        self.file = name(self.next.position);
        self.files.insert(self.file.clone(), file_head(self.next.position));
    }

    /// The bytes of the file that is written to.
    pub(crate) fn last(&mut self) -> &mut Vec<u8> {
        self.files.get_mut(&self.file).unwrap()
    }

    pub(crate) fn last_name(&self) -> &str {
        &self.file
    }
}

/// Where the frames of a file begin in it, as far as they are whole.
pub(crate) fn frame_starts(file: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), FILE_HEAD);
    while file.len() >= at + HEAD && file[at..].starts_with(b"WTTL") {
        starts.push(at);
        at += HEAD + u32::from_le_bytes(file[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    starts
}
