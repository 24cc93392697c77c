extension GenerationOptions {
    /// A method of choosing the next token.
    public struct SamplingMode: Sendable, Hashable, Codable {
        /// `nil` picks the most likely token.
        let draw: Draw?

        /// Always picks the most likely token.
        public static let greedy = SamplingMode(draw: nil)

        /// Samples a token at random. The same seed gives the same text; `nil` uses a new seed.
        ///
        /// - Parameters:
        ///   - top: The number of most likely tokens to draw from (top-k); 0 is all.
        ///   - probabilityThreshold: Samples from the smallest set of most likely tokens with this
        ///     total probability (top-p), in (0, 1].
        ///   - minP: Drops tokens with less than this fraction of the highest probability, in
        ///     [0, 1].
        ///   - typicalP: Samples from the smallest set of tokens whose information content is
        ///     closest to the entropy, with this total probability, in (0, 1].
        ///   - topNSigma: Drops tokens whose logit is more than this many standard deviations below
        ///     the largest; 0 is off.
        ///   - xtcProbability: The probability of XTC at each token, in [0, 1]: of the tokens above
        ///     `xtcThreshold`, only the least likely stays.
        ///   - xtcThreshold: The probability above which XTC drops tokens, in [0, 0.5].
        ///   - seed: The random seed.
        public static func random(
            top: Int = 0, probabilityThreshold: Double = 1, minP: Double = 0, typicalP: Double = 1,
            topNSigma: Double = 0, xtcProbability: Double = 0, xtcThreshold: Double = 0.1,
            seed: UInt64? = nil
        ) -> SamplingMode {
            SamplingMode(
                draw: Draw(
                    top: top, probabilityThreshold: probabilityThreshold, minP: minP,
                    typicalP: typicalP, topNSigma: topNSigma, xtcProbability: xtcProbability,
                    xtcThreshold: xtcThreshold, seed: seed))
        }
    }

    /// The parameters of random sampling.
    struct Draw: Sendable, Hashable, Codable {
        var top = 0
        var probabilityThreshold = 1.0
        var minP = 0.0
        var typicalP = 1.0
        var topNSigma = 0.0
        var xtcProbability = 0.0
        var xtcThreshold = 0.1
        var seed: UInt64?
    }
}
