import Foundation

/// The saved state of a fine-tuning run.
public struct FinetuneCheckpoint: Sendable, Equatable {
    /// The number of completed steps.
    public let iteration: Int
    /// The total number of targets so far.
    public let trainedTokens: Int
    /// Rows per batch.
    public let batchSize: Int
    /// Batches per update.
    public let gradAccumulationSteps: Int
    /// The validation with the lowest loss.
    public let best: FinetuneEvent.BestIteration?
}

extension LanguageModel {
    /// Returns the state of the fine-tuning run in `folder`, or `nil` if there is none to resume.
    ///
    /// With `resume`, ``finetune(on:savingTo:options:resume:)`` continues after
    /// ``FinetuneCheckpoint/iteration``. A run that ended before its first checkpoint has no state;
    /// it starts again.
    public static func resumableFineTuning(at folder: URL) async throws -> FinetuneCheckpoint? {
        let path = try filePath(folder, "folder")
        return try savedFinetune(URL(filePath: path))
    }
}

/// The name of the state file in the folder of a run.
let finetuneStateFile = "training_state.safetensors"
/// The largest header of a safetensors file, in bytes.
private let largestHeader = 100_000_000

/// Reads the counters of the run in `folder` from the header of its state file.
func savedFinetune(_ folder: URL) throws -> FinetuneCheckpoint? {
    let file = folder.appending(path: finetuneStateFile)
    guard FileManager.default.fileExists(atPath: file.path) else { return nil }
    func malformed(_ problem: String) -> OpenELMError {
        .invalidCheckpoint(path: file.path, message: "\(file.path): \(problem)")
    }
    let header: Data
    do {
        let handle = try FileHandle(forReadingFrom: file)
        defer { try? handle.close() }
        let prefix = try handle.read(upToCount: 8) ?? Data()
        let length = prefix.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard prefix.count == 8, length <= largestHeader else {
            throw malformed("expected a safetensors file, found another header")
        }
        header = try handle.read(upToCount: Int(length)) ?? Data()
        guard header.count == Int(length) else {
            throw malformed("expected a header of \(length) bytes, found \(header.count)")
        }
    } catch let error as OpenELMError {
        throw error
    } catch {
        throw OpenELMError.io(path: file.path, message: "\(file.path): \(error)")
    }
    let decoder = JSONDecoder()
    do {
        let counters = try decoder.decode(StateHeader.self, from: header).metadata.counters
        let saved = try decoder.decode(StateCounters.self, from: Data(counters.utf8))
        let key = saved.caller.key
        // A pre-training run has no adapter.
        guard key.kind != nil, let batchSize = key.batchSize else { return nil }
        return FinetuneCheckpoint(
            iteration: saved.iteration, trainedTokens: saved.caller.trainedTokens,
            batchSize: batchSize, gradAccumulationSteps: key.gradAccumulationSteps ?? 1,
            best: saved.caller.best.map {
                FinetuneEvent.BestIteration(iteration: $0.iteration, loss: $0.loss)
            })
    } catch {
        throw malformed("expected the counters of a run, found \(error)")
    }
}

/// The header of a state file.
private struct StateHeader: Decodable {
    struct Metadata: Decodable {
        let counters: String
        enum CodingKeys: String, CodingKey { case counters = "training_state" }
    }
    let metadata: Metadata
    enum CodingKeys: String, CodingKey { case metadata = "__metadata__" }
}

/// The counters in the header of a state file.
private struct StateCounters: Decodable {
    struct Progress: Decodable {
        struct Key: Decodable {
            let kind: String?
            let batchSize: Int?
            let gradAccumulationSteps: Int?
            enum CodingKeys: String, CodingKey {
                case kind = "fine_tune_type"
                case batchSize = "batch_size"
                case gradAccumulationSteps = "grad_accumulation_steps"
            }
        }
        struct Best: Decodable {
            let iteration: Int
            let loss: Double
        }
        let key: Key
        let trainedTokens: Int
        let best: Best?
        enum CodingKeys: String, CodingKey {
            case key = "resume_key"
            case trainedTokens = "trained_tokens"
            case best
        }
    }
    let iteration: Int
    let caller: Progress
}
