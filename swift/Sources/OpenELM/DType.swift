/// A number format of the computation or of stored weights.
public enum DType: String, Sendable, Codable, CaseIterable {
    /// 32-bit floats.
    case float32
    /// 16-bit floats (IEEE).
    case float16
    /// 16-bit floats with the range of 32-bit floats.
    case bfloat16
}
