import type { Metadata } from './api';
import { count, tokens } from './format';

/** What an answer took and what of it was charged. */
export function Receipt({ metadata }: { metadata: Metadata }) {
    const { usage, charged, receipt, clamped, replayed, model } = metadata;
    return (
        <div className="receipt" data-testid="receipt" data-charged={charged} data-receipt={receipt}>
            <p>
                <strong>{charged === undefined ? tokens(usage.totalTokens) : `${tokens(charged)} charged`}</strong>
                <span>{count(usage.promptTokens)} in, {count(usage.completionTokens)} out{usage.estimated ? ' (estimated)' : ''}</span>
                {replayed && <span>shown again, not charged again</span>}
                {model && <span>{model}</span>}
                {receipt && <span className="id" title="The receipt's id">{receipt}</span>}
            </p>
            {clamped && <p className="clamped">Shortened to what your plan had left.</p>}
        </div>
    );
}
